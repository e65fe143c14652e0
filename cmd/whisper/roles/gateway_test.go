package roles

import "testing"

func TestAZeroReceiptHoldMeansNone(t *testing.T) {
	t.Parallel()
	if cfg := (gatewayFlags{}).config(); cfg.ReceiptHold >= 0 {
		t.Errorf("0 became %s", cfg.ReceiptHold)
	}
}

func TestAGatewayIsReachedAtAnAddressOfItsMachine(t *testing.T) {
	t.Parallel()
	for listening, want := range map[string]string{
		"127.0.0.1:8081": "127.0.0.1:8081", "10.1.2.3:8081": "10.1.2.3:8081", "[::]:8081": "127.0.0.1:8081", "0.0.0.0:8081": "127.0.0.1:8081",
	} {
		if got := Advertised(t.Context(), listening, []string{"127.0.0.1:9092"}); got != want {
			t.Errorf("%s is told as %s, want %s", listening, got, want)
		}
	}
}

func TestAPublicSecretIsRefusedUnlessItIsMeant(t *testing.T) {
	t.Parallel()
	for _, secret := range publicSecrets {
		for _, flags := range []authFlags{{AuthSecret: secret}, {AuthSecretPrevious: secret}} {
			if flags.checkSecrets() == nil {
				t.Errorf("%q is taken", secret)
			}
			flags.AuthPublicSecret = true
			if err := flags.checkSecrets(); err != nil {
				t.Errorf("told that it is meant: %v", err)
			}
		}
	}
	if err := (authFlags{AuthSecret: "a secret of the tests, and of nobody else"}).checkSecrets(); err != nil {
		t.Error(err)
	}
}
