package roles

import (
	"fmt"
	"strings"
	"time"

	"github.com/alecthomas/kong"

	"github.com/klivvr/whisper/consumers"
	"github.com/klivvr/whisper/consumers/dispatch"
	"github.com/klivvr/whisper/consumers/push"
	"github.com/klivvr/whisper/consumers/push/apns"
	"github.com/klivvr/whisper/consumers/push/fcm"
	"github.com/klivvr/whisper/domain"
	"github.com/klivvr/whisper/domain/decide"
	"github.com/klivvr/whisper/gateway"
	"github.com/klivvr/whisper/ops"
	"github.com/klivvr/whisper/projections"
)

// Defaults gives flags the defaults that they name (`default:"${gateway_drain}"`). The package whose setting it is writes
// the value, and nobody else does. They are no variables of the parser's, which looks at each of those for each flag: with
// fifty of them, the start of every command took four times as long.
func Defaults() kong.Option {
	return kong.PostBuild(func(k *kong.Kong) error {
		values := defaultTexts()
		return kong.Visit(k.Model.Node, func(n kong.Visitable, next kong.Next) error {
			if flag, ok := n.(*kong.Flag); ok {
				if name, named := strings.CutPrefix(flag.Default, "${"); named {
					if value, known := values[strings.TrimSuffix(name, "}")]; known {
						flag.Default = value
					}
				}
			}
			return next(nil)
		})
	})
}

// defaultTexts are the defaults by the names that flags give them.
func defaultTexts() map[string]string {
	vars := map[string]string{}
	set := func(prefix string, values map[string]any) {
		for name, value := range values {
			vars[prefix+"_"+name] = defaultText(value)
		}
	}
	g, auth, topics := gateway.Defaults(), gateway.AuthDefaults(), consumers.DefaultTopology()
	set("gateway", map[string]any{
		"max_connections": g.MaxConnections, "max_per_user": g.MaxPerUser, "admit_rate": g.AdmitRate,
		"max_frame": g.MaxFrame, "max_frame_rate": g.MaxFrameRate, "send_buffer": g.SendBuffer, "max_unacked": g.MaxUnacked,
		"handshake_timeout": g.HandshakeTimeout, "ping_interval": g.PingInterval, "pong_timeout": g.PongTimeout,
		"write_timeout": g.WriteTimeout, "heartbeat": g.Heartbeat, "receipt_hold": g.ReceiptHold, "drain": g.DrainTimeout,
	})
	set("auth", map[string]any{"jwks_refresh": auth.JWKSRefresh, "leeway": auth.Leeway})
	set("topics", map[string]any{
		"partitions": topics.Partitions, "duplicate_window": topics.DuplicateWindow, "retention": topics.Retention,
	})
	set("member", map[string]any{"session_timeout": consumers.DefaultSessionTimeout})
	policy := decide.DefaultPolicy()
	set("policy", map[string]any{"ack_timeout": policy.AckTimeout, "spread": policy.Spread})
	set("dispatch", map[string]any{"walk_records": dispatch.Defaults().WalkRecords})
	set("push", map[string]any{"max_in_flight": push.Defaults().MaxInFlight})
	apple := apns.Defaults()
	set("apns", map[string]any{
		"environment": apple.Environment, "connections": apple.Connections, "streams": apple.Streams,
		"request_timeout": apple.RequestTimeout, "sound": apple.Sound,
	})
	google := fcm.Defaults()
	set("fcm", map[string]any{
		"target": google.Format.Target, "sound": google.Format.Sound, "per_minute": google.PerMinute, "connections": google.Connections,
		"streams": google.Streams, "request_timeout": google.RequestTimeout,
	})
	p := projections.Defaults()
	set("project", map[string]any{
		"retention_days": p.RetentionDays, "daily_days": p.DailyDays, "max_drop_days": p.MaxDropDays, "transaction_timeout": p.TransactionTimeout,
		"writers": p.Writers, "batch_facts": p.BatchFacts, "batch_wait": p.BatchWait,
	})
	health := ops.HealthDefaults()
	set("health", map[string]any{
		"max_projection_lag": health.MaxProjectionLag, "max_error_rate": health.MaxErrorRate, "max_utilization": health.MaxUtilization,
	})
	for _, lane := range domain.Lanes {
		vars["health_max_wait_"+lane.String()] = defaultText(health.MaxWait[lane])
	}
	vars["ops_addr"] = ops.DefaultAddr
	return vars
}

// defaultText is a value as a person writes it: 24h, not 24h0m0s.
func defaultText(value any) string {
	text := fmt.Sprint(value)
	if _, ok := value.(time.Duration); !ok {
		return text
	}
	if strings.HasSuffix(text, "m0s") {
		text = strings.TrimSuffix(text, "0s")
	}
	if strings.HasSuffix(text, "h0m") {
		text = strings.TrimSuffix(text, "0m")
	}
	return text
}
