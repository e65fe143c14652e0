package main

import (
	"io"
	"net/http"
	"strings"
	"testing"
)

// ask is a page's request; a body is posted as JSON.
func ask(t *testing.T, url, body string) (int, string) {
	t.Helper()
	method, reader := http.MethodGet, io.Reader(nil)
	if body != "" {
		method, reader = http.MethodPost, strings.NewReader(body)
	}
	r, err := http.NewRequestWithContext(t.Context(), method, url, reader)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(text)
}

func TestThePageOfDev(t *testing.T) {
	t.Parallel()
	dev := startDev(t, "--ephemeral")
	page := dev.find(t, `page +(http://\S+)`)
	if code, text := ask(t, page, ""); code != http.StatusOK || !strings.Contains(text, "<title>Whisper") {
		t.Errorf("the page is %d %s", code, text)
	}
	code, text := ask(t, page+"dev/token", `{"user":"mona"}`)
	if code != http.StatusOK {
		t.Fatalf("a token: %d %s", code, text)
	}
	token := decode[struct{ Token string }](t, text).Token
	heard, _, _ := background(t, nil, "listen", "--token="+token, "--url="+dev.find(t, `sockets +(\S+)`), "--json", "--count=1")
	if code, text := ask(t, page+"dev/send", `{"id":"p-1","user":"mona","lane":"high","title":"Hello"}`); code != http.StatusOK {
		t.Fatalf("send: %d %s", code, text)
	}
	eventually(t, "mona hears it", func() bool { return strings.Contains(heard.String(), `"id":"p-1"`) })
	if code := dev.stop(); code != exitOK {
		t.Errorf("exit code %d", code)
	}
}

// The endpoints behind the page give anybody a token.
func TestAGatewayHasNoPage(t *testing.T) {
	t.Parallel()
	b := startBroker(t)
	sockets, ops := freeAddr(t), freeAddr(t)
	_, stderr, stop := background(t, []string{"WHISPER_AUTH_SECRET=" + testSecret}, "gateway", "--node=n-1", "--kafka="+b.addr,
		"--partitions=3", "--listen="+sockets, "--ops-addr="+ops, "--max-connections=100", "--log-level=error")
	eventually(t, "the gateway is ready", func() bool {
		code, _, err := get(t, "http://"+ops+"/readyz")
		return err == nil && code == http.StatusOK
	})
	for path, body := range map[string]string{"/": "", "/app.js": "", "/dev/token": `{"user":"mona"}`, "/dev/send": `{"id":"p-1","user":"mona","lane":"high","title":"Hello"}`} {
		if code, text := ask(t, "http://"+sockets+path, body); code != http.StatusNotFound {
			t.Errorf("%s: %d %s", path, code, text)
		}
	}
	if code := stop(); code != exitOK {
		t.Errorf("exit code %d: %s", code, stderr)
	}
}
