# SBX_TRY_FLAGS(VARIABLE, FLAGS): appends to VARIABLE each flag that the compiler takes without a warning.
AC_DEFUN([SBX_TRY_FLAGS], [
for sbx_flag in m4_normalize([$2]); do
	AC_MSG_CHECKING([whether $CC takes $sbx_flag])
	sbx_save="$CFLAGS"; CFLAGS="$CFLAGS -Werror $sbx_flag"
	AC_LINK_IFELSE([AC_LANG_PROGRAM([], [])], [AC_MSG_RESULT([yes]); $1="$$1 $sbx_flag"], [AC_MSG_RESULT([no])])
	CFLAGS="$sbx_save"
done])

# SBX_TRY_CPPFLAGS: like SBX_TRY_FLAGS, for macros that need the optimizer (fortify warns without -O).
AC_DEFUN([SBX_TRY_CPPFLAGS], [
for sbx_flag in m4_normalize([$2]); do
	AC_MSG_CHECKING([whether $CC takes $sbx_flag])
	sbx_save="$CFLAGS"; CFLAGS="-O2 -Werror -U_FORTIFY_SOURCE $sbx_flag"
	AC_COMPILE_IFELSE([AC_LANG_PROGRAM([[#include <string.h>]], [])],
		[AC_MSG_RESULT([yes]); $1="$$1 -U_FORTIFY_SOURCE $sbx_flag"], [AC_MSG_RESULT([no])])
	CFLAGS="$sbx_save"
done])

# SBX_TRY_LDFLAGS: the same for the linker.
AC_DEFUN([SBX_TRY_LDFLAGS], [
for sbx_flag in m4_normalize([$2]); do
	AC_MSG_CHECKING([whether the linker takes $sbx_flag])
	sbx_save="$LDFLAGS"; LDFLAGS="$LDFLAGS $sbx_flag"
	AC_LINK_IFELSE([AC_LANG_PROGRAM([], [])], [AC_MSG_RESULT([yes]); $1="$$1 $sbx_flag"], [AC_MSG_RESULT([no])])
	LDFLAGS="$sbx_save"
done])
