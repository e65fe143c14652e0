package main

import (
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/gorilla/websocket"

	"github.com/klivvr/whisper/gateway"
)

const testSecret = "a secret of the tests, and of nobody else"

// oldDevSecret is what every `whisper dev` had once: it is in this repository's history.
const oldDevSecret = "whisper dev: everybody knows this secret"

func TestAGatewayRefusesPublicSecrets(t *testing.T) {
	t.Parallel()
	compose, err := os.ReadFile("../../docker-compose.yml")
	if err != nil {
		t.Fatal(err)
	}
	found := regexp.MustCompile(`WHISPER_AUTH_SECRET:-([^}]+)}`).FindSubmatch(compose)
	if found == nil {
		t.Fatal("docker-compose.yml has no secret that could be compared")
	}
	for _, secret := range []string{string(found[1]), oldDevSecret} {
		for _, flag := range []string{"auth-secret", "auth-secret-previous"} {
			args := []string{"gateway", "--node=n-1", "--kafka=127.0.0.1:1", "--auth-secret=" + testSecret, "--" + flag + "=" + secret}
			if got := whisper(t, nil, args...); got.code != exitUsage || !strings.Contains(got.stderr, "--"+flag+": is published") {
				t.Errorf("%s: exit code %d, %s", flag, got.code, got.stderr)
			}
		}
	}
}

// A page of another site can't use a `whisper dev`, nor can who knows what is public of it.
func TestDevRefusesStrangers(t *testing.T) {
	t.Parallel()
	state := stateFolder(t)
	dev := startDev(t, "--state="+state)
	url := dev.find(t, `sockets +(\S+)`)
	dial := func(token, origin string) int {
		t.Helper()
		header := http.Header{"Authorization": {"Bearer " + token}}
		if origin != "" {
			header.Set("Origin", origin)
		}
		conn, resp, err := websocket.DefaultDialer.DialContext(t.Context(), url, header)
		if resp != nil {
			defer func() { _ = resp.Body.Close() }()
		}
		if err != nil && resp == nil {
			t.Fatal(err)
		}
		if err != nil {
			return resp.StatusCode
		}
		defer conn.Close()
		if _, text, err := conn.ReadMessage(); err != nil || !strings.Contains(string(text), "welcome") {
			return 0
		}
		return http.StatusSwitchingProtocols
	}
	own := strings.TrimSpace(whisper(t, nil, "token", "--user=mona").stdout)
	forged, err := gateway.SignToken([]byte(oldDevSecret), "mona", time.Hour, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		token, origin string
		status        int
	}{
		{own, "", http.StatusSwitchingProtocols},
		{own, "http" + strings.TrimSuffix(strings.TrimPrefix(url, "ws"), "/v1/socket"), http.StatusSwitchingProtocols},
		{own, "https://evil.example.com", http.StatusForbidden},
		{forged, "", 0},
	} {
		if got := dial(c.token, c.origin); got != c.status {
			t.Errorf("origin %q: %d, want %d", c.origin, got, c.status)
		}
	}
	// What is kept is closed to the machine's other users.
	readable := os.FileMode(0o066)
	for _, path := range []string{state, filepath.Join(state, "kafka"), filepath.Join(state, "kafka", "lock")} {
		info, err := os.Stat(path)
		if err != nil {
			t.Fatal(err)
		}
		if info.Mode().Perm()&readable != 0 {
			t.Errorf("%s is %s", path, info.Mode())
		}
		readable = 0o077
	}
	if code := dev.stop(); code != exitOK {
		t.Errorf("exit code %d", code)
	}
}

func TestDevWarnsOfStrangers(t *testing.T) {
	t.Parallel()
	dev := startDev(t, "--ephemeral", "--listen=0.0.0.0:0")
	if got := dev.stderr.String(); !strings.Contains(got, "can be reached from other machines") || !strings.Contains(got, "listen") {
		t.Errorf("it said %q", got)
	}
	dev.stop()
}
