package fcm

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/klivvr/whisper/consumers/push/fcm/simulator"
)

// A plain http address is for this machine alone: the name of a stranger's may begin as its addresses do.
func TestATokenEndpointWithoutTLSIsThisMachine(t *testing.T) {
	t.Parallel()
	for host, want := range map[string]bool{
		"localhost": true, "127.0.0.1": true, "127.8.9.1": true, "[::1]": true,
		"127.0.0.1.example.com": false, "127.example.com": false, "10.0.0.1": false, "example.com": false,
	} {
		_, err := parseAccount(change(t, accountText, "token_uri", "http://"+host+":80/token"))
		if (err == nil) != want {
			t.Errorf("%s: got %v", host, err)
		}
	}
}

// Whatever stands in for the token endpoint can't fill the log.
func TestAPageInPlaceOfATokenIsLoggedInPart(t *testing.T) {
	t.Parallel()
	f := setup(t, simulator.Config{}, nil)
	page := "<html>" + strings.Repeat("x", 1<<17)
	f.fcm.ProgramTokens(1, simulator.Answer{Status: 502, Body: &page})
	if r := f.send("phone"); r.Class != retry || r.Reason != "no_access_token" {
		t.Fatalf("got %+v", r)
	}
	f.logs.mu.Lock()
	defer f.logs.mu.Unlock()
	if n := f.logs.b.Len(); n == 0 || n > 2<<10 {
		t.Errorf("the log has %d bytes", n)
	}
}

// JSON may have bytes that are no text. They count as what takes their place.
func TestDataThatIsNoTextIsCountedAsItIsSent(t *testing.T) {
	t.Parallel()
	p := pushOf(strings.Repeat("x", 2000))
	p.Content.Data = []byte(`{"a":"` + strings.Repeat("\xff", 1000) + `"}`)
	raw, err := Format{}.Body(p, noon)
	if err != nil {
		t.Fatal(err)
	}
	var got read
	if err := json.Unmarshal(raw, &got); err != nil {
		t.Fatal(err)
	}
	if _, size := got.text(); size > MaxPayloadBytes {
		t.Errorf("%d bytes", size)
	}
}
