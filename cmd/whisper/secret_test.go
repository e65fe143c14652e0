package main

import (
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/gorilla/websocket"

	"github.com/klivvr/whisper/gateway"
)

const testSecret = "a secret of the tests, and of nobody else"

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
	for _, secret := range append([]string{string(found[1])}, publicSecrets...) {
		for _, flag := range []string{"auth-secret", "auth-secret-previous"} {
			args := []string{"gateway", "--node=n-1", "--kafka=127.0.0.1:1", "--auth-secret=" + testSecret, "--" + flag + "=" + secret}
			if got := whisper(t, nil, args...); got.code != exitUsage || !strings.Contains(got.stderr, "--"+flag+": is public") {
				t.Errorf("%s: exit code %d, %s", flag, got.code, got.stderr)
			}
			if err := (authFlags{AuthSecret: secret, AuthPublicSecret: true}).checkSecrets(); err != nil {
				t.Errorf("told that it is meant: %v", err)
			}
		}
	}
	if err := (authFlags{AuthSecret: testSecret}).checkSecrets(); err != nil {
		t.Error(err)
	}
}

func TestTheSecretOfDevIsTheUsersOwn(t *testing.T) {
	config := t.TempDir()
	t.Setenv("XDG_CONFIG_HOME", config)
	t.Setenv("HOME", config)
	var all sync.Map
	var group sync.WaitGroup
	for range 8 {
		group.Go(func() {
			secret, err := devSecret()
			if err != nil || len(secret) < 40 {
				t.Errorf("%d bytes, %v", len(secret), err)
			}
			all.Store(secret, true)
		})
	}
	group.Wait()
	n := 0
	all.Range(func(any, any) bool { n++; return true })
	if n != 1 {
		t.Errorf("8 at once have %d secrets", n)
	}
	err := filepath.WalkDir(config, func(path string, d os.DirEntry, err error) error {
		if err != nil || path == config {
			return err
		}
		info, err := d.Info()
		if err == nil && info.Mode().Perm()&0o077 != 0 {
			t.Errorf("%s is %s", path, info.Mode())
		}
		if !d.IsDir() && d.Name() != "dev-secret" {
			t.Errorf("%s was left", path)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

// A page of another site can't use a `whisper dev`, nor can who knows what is public of it.
func TestDevLetsNoStrangersIn(t *testing.T) {
	t.Parallel()
	state := stateFolder(t)
	dev := startDev(t, "--state="+state)
	url := dev.find(t, `sockets +(\S+)`)
	dial := func(secret, origin string) int {
		t.Helper()
		token, err := gateway.SignToken([]byte(secret), "mona", time.Hour, time.Now())
		if err != nil {
			t.Fatal(err)
		}
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
	own, err := devSecret()
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		secret, origin string
		status         int
	}{
		{own, "", http.StatusSwitchingProtocols},
		{own, "http" + strings.TrimSuffix(strings.TrimPrefix(url, "ws"), "/v1/socket"), http.StatusSwitchingProtocols},
		{own, "https://evil.example.com", http.StatusForbidden},
		{publicSecrets[0], "", 0},
	} {
		if got := dial(c.secret, c.origin); got != c.status {
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

func TestBeyondThisMachine(t *testing.T) {
	t.Parallel()
	for addr, beyond := range map[string]bool{
		"127.0.0.1:8080": false, "localhost:8080": false, "[::1]:8080": false, "127.9.9.9:0": false,
		"0.0.0.0:8080": true, ":8080": true, "[::]:8080": true, "192.168.1.5:80": true, "laptop.local:80": true,
	} {
		if got := beyondThisMachine(addr); got != beyond {
			t.Errorf("%s: %t", addr, got)
		}
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
