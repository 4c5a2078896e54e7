# api/cli/
