// SPDX-License-Identifier: Apache-2.0
#include "api/lifecycle/lifecycle_api.h"

#include "api/call.h"
#include "base/cleanup.h"
#include "base/jv.h"

void lifecycle_api_no_snapshots(struct api_call *call)
{
	api_reply_code(call, SBX_E_SNAPSHOT_UNSUPPORTED, "snapshots are not offered by this server");
}

void lifecycle_api_no_pools(struct api_call *call)
{
	api_reply_code(call, SBX_E_POOL_API_UNSUPPORTED, "pools by name are not offered; prepared sandboxes are kept by themselves");
}

void lifecycle_api_health(struct api_call *call)
{
	auto_buf body = {0};
	struct jw w = {.out = &body};

	jw_object(&w);
	jw_key_str(&w, "status", "healthy");
	jw_object_end(&w);
	api_reply_json(call, 200, &body);
}

void lifecycle_api_telemetry(struct api_call *call)
{
	api_reply_empty(call, 204);
}
