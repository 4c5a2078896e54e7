# images/: reference -> directory tree.  libimages.a is for sandboxd; the archive reader is in sandbox-unpack alone.
TREE_SEAL_SOURCES = images/tree_seal.c images/tree_seal.h images/seal_content.c images/seal_content.h images/dir_names.c images/dir_names.h
pkglibexec_PROGRAMS += sandbox-unpack
sandbox_unpack_SOURCES = images/unpack_main.c images/unpack_result.h images/unpack_filter.c images/unpack_filter.h \
	images/layer.c images/layer.h images/layer_form.h images/tree_writer.c images/tree_writer.h images/host_image.c \
	images/host_image.h images/layer_capture.c images/layer_capture.h images/tar_io.c images/tar_io.h \
	images/archive_index.c images/archive_index.h $(TREE_SEAL_SOURCES)
sandbox_unpack_CFLAGS = $(AM_CFLAGS) $(LIBARCHIVE_CFLAGS)
sandbox_unpack_LDADD = libimages.a libbase.a $(LIBARCHIVE_LIBS) $(CRYPTO_LIBS)

# Talks to registries; libcurl is in this program alone.
pkglibexec_PROGRAMS += sandbox-fetch
sandbox_fetch_SOURCES = images/fetch_main.c images/registry.c images/registry.h images/registry_http.c images/registry_http.h \
	images/fetch_post.c images/fetch_post.h
sandbox_fetch_CFLAGS = $(AM_CFLAGS) $(CURL_CFLAGS)
sandbox_fetch_LDADD = libimages.a libbase.a $(CURL_LIBS) $(CJSON_LIBS) $(CRYPTO_LIBS)

check_PROGRAMS += tests/system/unpack_run
tests_system_unpack_run_SOURCES = tests/system/unpack_run.c
tests_system_unpack_run_LDADD = libbase.a
ROOT_TESTS += tests/system/unpack_hostile.sh tests/system/images_store.sh tests/system/images_commit.sh tests/system/images_fsck.sh
EXTRA_DIST += tests/images/make_hostile.py
ROOT_TESTS += tests/system/registry.sh tests/system/archive.sh
EXTRA_DIST += tests/system/archive.py tests/system/images_lib.py
EXTRA_DIST += tests/system/registry.sh tests/system/registry.py tests/fakes/registry.py tests/images/make_oci.py

noinst_LIBRARIES += libimages.a
libimages_a_SOURCES = images/digest.c images/digest.h images/digest_map.c images/digest_map.h images/gc.c images/gc.h images/image_ref.c images/image_ref.h images/image_store.c \
	images/image_store.h images/manifest.c images/manifest.h images/registry_auth.c images/registry_auth.h \
	images/blob_store.c images/blob_verify.c images/blob_receive.c images/blob_store.h images/fetch_msg.h images/fetch_client.c images/fetch_client.h \
	images/pull.c images/pull.h images/pull_int.h images/pull_blob.c images/pull_layer.c images/pull_manifest.c \
	images/pull_transfer.c images/pull_transfer.h \
	images/archive_table.c images/archive_image.c images/archive_image.h images/export_documents.c images/export_documents.h \
	images/export_stream.c images/export_stream.h images/xattr_rules.c images/xattr_rules.h
libimages_a_CFLAGS = $(AM_CFLAGS) $(CRYPTO_CFLAGS)

check_PROGRAMS += tests/unit/test_images tests/fuzz/fuzz_image_ref
UNIT_TESTS += tests/unit/test_images tests/fuzz/fuzz_image_ref
tests_unit_test_images_SOURCES = tests/unit/test_images.c images/tree_writer.c images/layer.c images/tar_io.c $(TREE_SEAL_SOURCES)
tests_unit_test_images_CFLAGS = $(AM_CFLAGS) $(LIBARCHIVE_CFLAGS)
tests_unit_test_images_LDADD = libimages.a libbase.a $(CRYPTO_LIBS) $(CJSON_LIBS) $(LIBARCHIVE_LIBS)
tests_fuzz_fuzz_image_ref_SOURCES = tests/fuzz/fuzz_image_ref.c tests/fuzz/run_corpus.c
tests_fuzz_fuzz_image_ref_LDADD = libimages.a libbase.a $(CRYPTO_LIBS)
EXTRA_DIST += tests/fuzz/corpus/image_ref

check_PROGRAMS += tests/fuzz/fuzz_tree_path
UNIT_TESTS += tests/fuzz/fuzz_tree_path
tests_fuzz_fuzz_tree_path_SOURCES = tests/fuzz/fuzz_tree_path.c tests/fuzz/run_corpus.c images/tree_writer.c $(TREE_SEAL_SOURCES)
tests_fuzz_fuzz_tree_path_LDADD = libimages.a libbase.a $(CRYPTO_LIBS)
EXTRA_DIST += tests/fuzz/corpus/tree_path

check_PROGRAMS += tests/unit/test_seal tests/fuzz/fuzz_seal
UNIT_TESTS += tests/unit/test_seal tests/fuzz/fuzz_seal
tests_unit_test_seal_SOURCES = tests/unit/test_seal.c $(TREE_SEAL_SOURCES)
tests_unit_test_seal_LDADD = libimages.a libbase.a $(CRYPTO_LIBS)
tests_fuzz_fuzz_seal_SOURCES = tests/fuzz/fuzz_seal.c tests/fuzz/run_corpus.c $(TREE_SEAL_SOURCES)
tests_fuzz_fuzz_seal_LDADD = libimages.a libbase.a $(CRYPTO_LIBS)
EXTRA_DIST += tests/fuzz/corpus/seal

check_PROGRAMS += tests/unit/test_archive tests/fuzz/fuzz_archive
UNIT_TESTS += tests/unit/test_archive tests/fuzz/fuzz_archive
tests_unit_test_archive_SOURCES = tests/unit/test_archive.c images/layer_capture.c images/tar_io.c images/dir_names.c
tests_unit_test_archive_CFLAGS = $(AM_CFLAGS) $(LIBARCHIVE_CFLAGS)
tests_unit_test_archive_LDADD = libimages.a libbase.a $(CRYPTO_LIBS) $(CJSON_LIBS) $(LIBARCHIVE_LIBS)
tests_fuzz_fuzz_archive_SOURCES = tests/fuzz/fuzz_archive.c tests/fuzz/run_corpus.c images/archive_index.c images/tar_io.c images/tree_writer.c $(TREE_SEAL_SOURCES)
tests_fuzz_fuzz_archive_CFLAGS = $(AM_CFLAGS) $(LIBARCHIVE_CFLAGS)
tests_fuzz_fuzz_archive_LDADD = libimages.a libbase.a $(CRYPTO_LIBS) $(CJSON_LIBS) $(LIBARCHIVE_LIBS)
EXTRA_DIST += tests/fuzz/corpus/archive

# What registries say.
check_PROGRAMS += tests/unit/test_registry tests/fuzz/fuzz_challenge tests/fuzz/fuzz_manifest
UNIT_TESTS += tests/unit/test_registry tests/fuzz/fuzz_challenge tests/fuzz/fuzz_manifest
REGISTRY_TEST_LIBS = libimages.a libbase.a $(CRYPTO_LIBS) $(CJSON_LIBS)
tests_unit_test_registry_SOURCES = tests/unit/test_registry.c
tests_unit_test_registry_LDADD = $(REGISTRY_TEST_LIBS)
tests_fuzz_fuzz_challenge_SOURCES = tests/fuzz/fuzz_challenge.c tests/fuzz/run_corpus.c
tests_fuzz_fuzz_challenge_LDADD = $(REGISTRY_TEST_LIBS)
tests_fuzz_fuzz_manifest_SOURCES = tests/fuzz/fuzz_manifest.c tests/fuzz/run_corpus.c
tests_fuzz_fuzz_manifest_LDADD = $(REGISTRY_TEST_LIBS)
EXTRA_DIST += tests/fuzz/corpus/challenge tests/fuzz/corpus/manifest

# What a collection takes.
check_PROGRAMS += tests/unit/test_gc
UNIT_TESTS += tests/unit/test_gc
tests_unit_test_gc_SOURCES = tests/unit/test_gc.c
tests_unit_test_gc_LDADD = libimages.a libbase.a $(CRYPTO_LIBS) $(CJSON_LIBS)
