package simulator

import (
	"bytes"
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// checked is a request that FCM would take.
type checked struct {
	device       string // empty: a topic or a condition
	validateOnly bool
}

// kind is what a field of the API may hold.
type kind int8

const (
	text    kind = iota
	texts        // a map of texts
	number       // an int32
	boolean      //
	object       // with fields of its own
	anything
)

type field struct {
	kind   kind
	fields map[string]field
	enum   []string
}

// The fields of a SendMessageRequest as Google's discovery document has them; of the other platforms only the names.
var (
	notificationFields = map[string]field{"title": {}, "body": {}, "image": {}}
	androidFields      = map[string]field{
		"collapseKey": {}, "priority": {enum: []string{"NORMAL", "HIGH"}}, "ttl": {}, "restrictedPackageName": {}, "data": {kind: texts},
		"directBootOk": {kind: boolean}, "bandwidthConstrainedOk": {kind: boolean}, "restrictedSatelliteOk": {kind: boolean},
		"fcmOptions": {kind: object, fields: map[string]field{"analyticsLabel": {}}},
		"notification": {kind: object, fields: map[string]field{
			"title": {}, "body": {}, "icon": {}, "color": {}, "sound": {}, "tag": {}, "clickAction": {}, "bodyLocKey": {}, "titleLocKey": {},
			"bodyLocArgs": {kind: anything}, "titleLocArgs": {kind: anything}, "channelId": {}, "ticker": {}, "image": {}, "eventTime": {},
			"sticky": {kind: boolean}, "localOnly": {kind: boolean}, "defaultSound": {kind: boolean},
			"defaultVibrateTimings": {kind: boolean}, "defaultLightSettings": {kind: boolean}, "vibrateTimings": {kind: anything},
			"notificationPriority": {}, "visibility": {}, "notificationCount": {kind: number}, "lightSettings": {kind: anything},
			"proxy": {}, "bypassProxyNotification": {kind: boolean},
		}},
	}
	messageFields = map[string]field{
		"name": {}, "token": {}, "fid": {}, "topic": {}, "condition": {}, "data": {kind: texts},
		"notification": {kind: object, fields: notificationFields}, "android": {kind: object, fields: androidFields},
		"webpush": {kind: anything}, "apns": {kind: anything},
		"fcmOptions": {kind: object, fields: map[string]field{"analyticsLabel": {}}},
	}
	requestFields = map[string]field{"validateOnly": {kind: boolean}, "message": {kind: object, fields: messageFields}}
)

// check is FCM's judgement of a body; wrong is its answer to one that it refuses.
func check(body []byte) (m checked, wrong *Answer) {
	var raw any
	decoder := json.NewDecoder(bytes.NewReader(body))
	decoder.UseNumber()
	if err := decoder.Decode(&raw); err != nil || decoder.More() {
		return m, &Answer{Status: 400, Message: "Invalid JSON payload received. Unexpected end or token."}
	}
	request, wrong := read(raw, "", field{kind: object, fields: requestFields})
	if wrong != nil {
		return m, wrong
	}
	top, _ := request.(map[string]any)
	m.validateOnly, _ = top["validateOnly"].(bool)
	message, _ := top["message"].(map[string]any)
	if message == nil {
		return m, invalid("message", "The message is not set.")
	}
	var targets []string
	for _, name := range []string{"token", "fid", "topic", "condition"} {
		if value, _ := message[name].(string); value != "" {
			targets = append(targets, name)
		}
	}
	if len(targets) != 1 {
		return m, invalid("message", "Exactly one of token, fid, topic or condition is required.")
	}
	if name := targets[0]; name == "token" || name == "fid" {
		m.device, _ = message[name].(string)
		if !isDevice(m.device) {
			return m, invalid("message."+name, "The registration token is not a valid FCM registration token")
		}
	}
	return m, checkMessage(message)
}

func invalid(field, message string) *Answer {
	return &Answer{Status: 400, Code: "INVALID_ARGUMENT", Message: message, Field: field}
}

func checkMessage(message map[string]any) *Answer {
	android, _ := message["android"].(map[string]any)
	size := 0
	for path, data := range map[string]any{"message.data": message["data"], "message.android.data": android["data"]} {
		texts, _ := data.(map[string]any)
		for key, value := range texts {
			if reserved(key) {
				return invalid(path, "Invalid data payload key: "+key)
			}
			s, _ := value.(string)
			size += len(key) + len(s)
		}
	}
	if ttl, has := android["ttl"].(string); has && !isTTL(ttl) {
		return invalid("message.android.ttl", "Invalid value: the time to live must be 0 to 2419200 seconds.")
	}
	for _, holder := range []map[string]any{message, android} {
		shown, _ := holder["notification"].(map[string]any)
		for key, value := range shown {
			if s, is := value.(string); is {
				size += len(key) + len(s)
			}
		}
		if n, is := shown["notificationCount"].(json.Number); is && strings.HasPrefix(n.String(), "-") {
			return invalid("message.android.notification.notification_count", "Invalid value: must not be negative.")
		}
	}
	if size > 4096 {
		return &Answer{Status: 400, Code: "INVALID_ARGUMENT", Message: "Android message is too big"}
	}
	return nil
}

// reserved are keys that FCM uses itself.
func reserved(key string) bool {
	return key == "from" || key == "message_type" || strings.HasPrefix(key, "google.") || strings.HasPrefix(key, "gcm.notification.")
}

// isTTL: seconds with an s, up to nine places after the point.
func isTTL(s string) bool {
	seconds, has := strings.CutSuffix(s, "s")
	n, err := strconv.ParseFloat(seconds, 64)
	return has && err == nil && n >= 0 && n <= 2419200 && !strings.ContainsAny(seconds, "eExX_+nN")
}

// read checks a value against what the API has there, and returns it with the names in camelCase: Google takes both forms.
func read(v any, path string, f field) (any, *Answer) {
	bad := func(want string) (any, *Answer) {
		return nil, &Answer{Status: 400, Message: fmt.Sprintf("Invalid value at '%s' (%s), %v", path, want, v), Field: path}
	}
	switch f.kind {
	case anything:
		return v, nil
	case text:
		s, is := v.(string)
		if !is {
			return bad("TYPE_STRING")
		}
		if f.enum != nil && !slices.Contains(f.enum, strings.ToUpper(s)) {
			return bad("ENUM")
		}
		return s, nil
	case boolean:
		if _, is := v.(bool); !is {
			return bad("TYPE_BOOL")
		}
		return v, nil
	case number:
		n, is := v.(json.Number)
		if _, err := strconv.ParseInt(n.String(), 10, 32); !is || err != nil {
			return bad("TYPE_INT32")
		}
		return n, nil
	case texts:
		all, is := v.(map[string]any)
		if !is {
			return bad("a map")
		}
		for key, value := range all {
			if _, is := value.(string); !is {
				path += "[" + key + "].value"
				return nil, &Answer{Status: 400, Message: fmt.Sprintf("Invalid value at '%s' (TYPE_STRING), %v", path, value), Field: path}
			}
		}
		return all, nil
	case object:
		all, is := v.(map[string]any)
		if !is {
			return bad("a message")
		}
		return readObject(all, path, f.fields)
	}
	return v, nil
}

func readObject(all map[string]any, path string, fields map[string]field) (any, *Answer) {
	out := make(map[string]any, len(all))
	for name, value := range all {
		key := camel(name)
		inner, known := fields[key]
		if _, twice := out[key]; twice || !known {
			where := ""
			if path != "" {
				where = " at '" + path + "'"
			}
			return nil, &Answer{
				Status: 400, Field: path,
				Message: fmt.Sprintf("Invalid JSON payload received. Unknown name %q%s: Cannot find field.", name, where),
			}
		}
		if value == nil { // as not set
			continue
		}
		child := name
		if path != "" {
			child = path + "." + name
		}
		got, wrong := read(value, child, inner)
		if wrong != nil {
			return nil, wrong
		}
		out[key] = got
	}
	return out, nil
}

// camel turns collapse_key into collapseKey.
func camel(name string) string {
	parts := strings.Split(name, "_")
	for i, part := range parts[1:] {
		if part != "" {
			parts[i+1] = strings.ToUpper(part[:1]) + part[1:]
		}
	}
	return strings.Join(parts, "")
}

func isDevice(token string) bool {
	for _, b := range []byte(token) {
		ok := b >= '0' && b <= '9' || b >= 'a' && b <= 'z' || b >= 'A' && b <= 'Z' || strings.IndexByte("-_:.", b) >= 0
		if !ok {
			return false
		}
	}
	return len(token) <= 4096
}
