/* SPDX-License-Identifier: Apache-2.0 */
#include "config.h"

#include <errno.h>
#include <idn2.h>
#include <stdlib.h>
#include <string.h>

#include "netpolicy/idn.h"

int idn_to_ascii(const char *text, char *out, size_t size)
{
	char *ascii = NULL;
	int r = idn2_to_ascii_8z(text, &ascii, IDN2_NONTRANSITIONAL | IDN2_NFC_INPUT);
	int result = 0;

	if (r == IDN2_MALLOC)
		return -ENOMEM;
	if (r == IDN2_TOO_BIG_DOMAIN || r == IDN2_TOO_BIG_LABEL)
		return -ENAMETOOLONG;
	if (r != IDN2_OK)
		return -EINVAL;
	if (strlen(ascii) >= size)
		result = -ENAMETOOLONG;
	else
		memcpy(out, ascii, strlen(ascii) + 1);
	idn2_free(ascii);
	return result;
}
