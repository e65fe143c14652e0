package apns

import (
	"net/http"
	"testing"

	"github.com/klivvr/whisper/consumers/push/apns/simulator"
	"github.com/klivvr/whisper/consumers/push/conformance"
	"github.com/klivvr/whisper/domain/whisperv1"
)

func TestConformance(t *testing.T) {
	t.Parallel()
	answers := map[conformance.Behavior]simulator.Answer{
		conformance.Outage:           {Status: http.StatusServiceUnavailable, Reason: "ServiceUnavailable"},
		conformance.Later:            {Status: http.StatusTooManyRequests, Reason: "TooManyRequests", RetryAfter: "420"},
		conformance.Dead:             {Status: http.StatusBadRequest, Reason: "BadDeviceToken"},
		conformance.RefuseCredential: {Status: http.StatusForbidden, Reason: "InvalidProviderToken"},
		conformance.HTML:             {Status: http.StatusBadGateway, Body: []byte("<html>bad gateway</html>")},
		conformance.Empty:            {Status: http.StatusServiceUnavailable, Body: []byte(" ")},
		conformance.Half:             {Status: http.StatusInternalServerError, Body: []byte(`{"reason":"Internal`)},
		conformance.ErrorInside:      {Status: http.StatusOK, Body: []byte(`{"reason":"InternalServerError"}`)},
		conformance.Cut:              {Fault: simulator.Cut},
		conformance.Silent:           {Fault: simulator.Silent},
	}
	conformance.Run(t, func(t *testing.T, s conformance.Settings) conformance.Subject {
		f := setup(t, func(c *Config, sim *simulator.Config) {
			c.Credential, c.RequestTimeout, c.Rest, c.BreakerRest = s.Credential, s.RequestTimeout, s.Rest, s.BreakerRest
			c.Connections, c.Streams, c.Logger, c.Metrics, c.Now = s.Connections, s.Streams, s.Logger, s.Metrics, s.Now
			sim.Now = s.Now
		})
		return conformance.Subject{
			Provider: f.Provider,
			Behave: func(b conformance.Behavior) {
				f.sim.Forget("")
				if b != conformance.Accept {
					f.sim.Program("", 0, answers[b])
				}
			},
			Asked: func() int {
				c := f.sim.Counts()
				n := c.Accepted + c.Unanswered
				for _, refused := range c.Refused {
					n += refused
				}
				return int(n)
			},
			Connections: func() int { return int(f.sim.Counts().Connections) },
			Attempt:     func(n int) *whisperv1.Push { return attemptTo(device(n)) },
		}
	})
}
