#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# The life of one sandbox over the HTTP API, with curl alone: make, run a command, upload, download, remove.
# Needs OPEN_SANDBOX_DOMAIN (http://127.0.0.1:8080) and OPEN_SANDBOX_API_KEY (/run/sandboxd/0/key).
set -eu
base=${OPEN_SANDBOX_DOMAIN:-http://127.0.0.1:8080}
key="OPEN-SANDBOX-API-KEY: ${OPEN_SANDBOX_API_KEY:?the key stands in /run/sandboxd/0/key}"

id=$(curl -sfS -H "$key" -H 'Content-Type: application/json' "$base/v1/sandboxes" -d '{
	"image": {"uri": "host"}, "entrypoint": ["tail", "-f", "/dev/null"],
	"timeout": 600, "resourceLimits": {"memory": "256Mi"}}' | sed 's/.*"id":"\([^"]*\)".*/\1/')
echo "sandbox $id"
execd="$base/sandboxes/$id/proxy/44772"
trap 'curl -sfS -X DELETE -H "$key" "$base/v1/sandboxes/$id" && echo removed' EXIT

# each line of output is one JSON event
curl -sfSN -H "$key" -H 'Content-Type: application/json' "$execd/command" -d '{"command": "echo hello; id -u"}'
echo 'from outside' | curl -sfS -H "$key" "$execd/files/upload" \
	-F 'metadata={"path":"/tmp/in.txt"};filename=metadata;type=application/json' -F 'file=@-;filename=file'
curl -sfS -H "$key" "$execd/files/download?path=/tmp/in.txt"
