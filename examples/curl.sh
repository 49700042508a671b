#!/bin/sh
# The REST side of the API with curl: token, job, live status, cancel, share.
#   PORTOLAN_API_KEY=sk_… sh examples/curl.sh [DEVICE_GROUP_ID [URL [KEY_ID]]]
# The id of the key (the client id) is needed for the token only. Needs jq.
set -eu

key=${PORTOLAN_API_KEY:?set PORTOLAN_API_KEY}
group=${1:-sandbox-dock-1}
url=${2:-http://127.0.0.1:8080}
key_id=${3:-}
json='Content-Type: application/json'

echo "# A token: valid for an hour; there is no refresh, ask again."
if [ -n "$key_id" ]; then
  token=$(curl -fsS "$url/v3/auth/token" -H "x-api-key: $key" -H "$json" -d "$(
    jq -n --arg id "$key_id" --arg secret "$key" \
      '{grant_type: "client_credentials", client_id: $id, client_secret: $secret}'
  )" | jq -r .access_token)
  auth="Authorization: Bearer $token"
else
  echo "  No key id given; going on with the API key itself, which works everywhere too"
  auth="x-api-key: $key"
fi

new_job() {
  curl -fsS "$url/v3/jobs/create" -H "$auth" -H "$json" \
    -H "Idempotency-Key: $(cat /proc/sys/kernel/random/uuid 2>/dev/null || uuidgen)" -d "$(
      jq -n --arg group "$group" --arg name "$1" \
        '{name: $name, deviceGroupId: $group, missionId: "curl-survey", actionOnArrival: "MISSION"}'
    )" | jq -r .job.jobId
}

echo "# A job, followed line by line (NDJSON) for ten seconds"
job=$(new_job "From curl")
echo "  $job"
curl -sN --max-time 10 "$url/v3/jobs/$job/status/ws" -H "$auth" -H 'Accept: application/x-ndjson' || true

echo "# The same as server-sent events, which browsers reconnect by themselves"
curl -sN --max-time 5 "$url/v3/jobs/$job/status/ws" -H "$auth" -H 'Accept: text/event-stream' || true

echo "# Cancel: the drone turns back, then the job is CANCELLED"
curl -fsS "$url/v3/jobs/$job/cancel" -H "$auth" -H "$json" -d '{"reason": "Only a test"}' | jq .
curl -sN --max-time 20 "$url/v3/jobs/$job/status/ws" -H "$auth" -H 'Accept: application/x-ndjson' | tail -n 1

echo "# A share: whoever has the code may watch for an hour, ten at a time"
share=$(curl -fsS "$url/v3/streams/share" -H "$auth" -H "$json" -d "$(
  jq -n --arg group "$group" \
    '{resourceId: $group, shareType: "DEVICE_STATUS", permissions: ["view"], expiresIn: 3600, maxViewers: 10}'
)" | jq -r .share.shareCode)
curl -sN --max-time 3 "$url/v3/shares/$share/status/ws" -H 'Accept: application/x-ndjson' || true
curl -fsS -X DELETE "$url/v3/shares/$share" -H "$auth" | jq .
