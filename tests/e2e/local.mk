# tests/e2e/: the released SDK, unmodified, against a daemon of its own
E2E_TESTS += tests/e2e/run.sh tests/e2e/typescript.sh
EXTRA_DIST += tests/e2e/package.json tests/e2e/sdk.test.mjs tests/e2e/reporter.mjs tests/e2e/typescript.py
