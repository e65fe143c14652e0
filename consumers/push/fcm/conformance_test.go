package fcm

import (
	"net/http"
	"strconv"
	"testing"

	"github.com/klivvr/whisper/consumers/push/conformance"
	"github.com/klivvr/whisper/consumers/push/fcm/simulator"
	"github.com/klivvr/whisper/domain/whisperv1"
)

func TestConformance(t *testing.T) {
	t.Parallel()
	text := func(s string) *string { return &s }
	later := strconv.Itoa(int(conformance.RetryAfter.Seconds()))
	answers := map[conformance.Behavior]simulator.Answer{
		conformance.Outage:           {Status: http.StatusServiceUnavailable, Code: "UNAVAILABLE"},
		conformance.Later:            {Status: http.StatusServiceUnavailable, Code: "UNAVAILABLE", RetryAfter: later},
		conformance.Dead:             {Status: http.StatusNotFound, Code: "UNREGISTERED"},
		conformance.RefuseCredential: {Status: http.StatusForbidden, Message: "Permission denied on the project"},
		conformance.HTML:             {Status: http.StatusBadGateway, Body: text("<html>bad gateway</html>")},
		conformance.Empty:            {Status: http.StatusServiceUnavailable, Body: text(" ")},
		conformance.Half:             {Status: http.StatusInternalServerError, Body: text(`{"error":{"code":500,"mess`)},
		conformance.ErrorInside:      {Status: http.StatusOK, Body: text(`{"error":{"code":500,"status":"INTERNAL"}}`)},
		conformance.Cut:              {Fault: simulator.Cut},
		conformance.Silent:           {Fault: simulator.Silent},
	}
	conformance.Run(t, func(t *testing.T, s conformance.Settings) conformance.Subject {
		f := setup(t, simulator.Config{}, func(c *Config) {
			c.Credential, c.RequestTimeout, c.Rest, c.BreakerRest = s.Credential, s.RequestTimeout, s.Rest, s.BreakerRest
			c.Connections, c.Streams, c.Logger, c.Metrics, c.Now = s.Connections, s.Streams, s.Logger, s.Metrics, s.Now
		})
		return conformance.Subject{
			Provider: f.Provider,
			Behave: func(b conformance.Behavior) {
				f.fcm.Forget("")
				if b != conformance.Accept {
					f.fcm.Program("", 0, answers[b])
				}
			},
			Asked:       func() int { return int(f.asked()) },
			Connections: func() int { return int(f.fcm.Counts().Connections) },
			Attempt:     func(n int) *whisperv1.Push { return f.push("phone" + strconv.Itoa(n)) },
		}
	})
}
