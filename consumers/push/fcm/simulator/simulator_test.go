package simulator

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/oauth2"
	"golang.org/x/oauth2/google"
)

type fixture struct {
	*Simulator
	t      *testing.T
	plain  *http.Client
	client *http.Client // with an access token
}

func setup(t *testing.T, cfg Config) *fixture {
	t.Helper()
	s, err := Start(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	protocols := new(http.Protocols)
	protocols.SetHTTP2(true)
	transport := &http.Transport{Protocols: protocols, TLSClientConfig: &tls.Config{RootCAs: s.RootCAs(), MinVersion: tls.VersionTLS12}}
	t.Cleanup(transport.CloseIdleConnections)
	f := &fixture{Simulator: s, t: t, plain: &http.Client{Transport: transport}}
	f.client = f.as(s.Credentials(), Scope)
	return f
}

// as is a client of an account, by the library that real clients use.
func (f *fixture) as(credentials []byte, scopes ...string) *http.Client {
	f.t.Helper()
	cfg, err := google.JWTConfigFromJSON(credentials, scopes...)
	if err != nil {
		f.t.Fatal(err)
	}
	return cfg.Client(context.WithValue(f.t.Context(), oauth2.HTTPClient, f.plain))
}

// request makes any request.
func (f *fixture) request(client *http.Client, method, path, contentType, body string) (status int, answer string, err error) {
	f.t.Helper()
	req, err := http.NewRequestWithContext(f.t.Context(), method, f.URL()+path, strings.NewReader(body))
	if err != nil {
		f.t.Fatal(err)
	}
	req.Header.Set("Content-Type", contentType)
	resp, err := client.Do(req)
	if err != nil {
		return 0, "", err
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	return resp.StatusCode, string(text), err
}

// send posts a message.
func (f *fixture) send(ctx context.Context, body string) (status int, answer string, header http.Header, err error) {
	f.t.Helper()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, f.URL()+"/v1/projects/simulated/messages:send", strings.NewReader(body))
	if err != nil {
		f.t.Fatal(err)
	}
	resp, err := f.client.Do(req)
	if err != nil {
		return 0, "", nil, err
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	return resp.StatusCode, string(text), resp.Header, err
}

func message(fields string) string { return `{"message":{"token":"phone"` + fields + `}}` }

func TestMessagesAreJudgedAsGoogleDoes(t *testing.T) {
	t.Parallel()
	f := setup(t, Config{})
	long := strings.Repeat("x", 4090)
	for name, c := range map[string]struct {
		body   string
		status int
		want   []string // in the answer
	}{
		"whole": {`{"message":{"token":"a:B-_.9","data":{"k":"v"},"android":{"collapseKey":"c","priority":"HIGH","ttl":"3600s",` +
			`"notification":{"title":"t","tag":"g","channelId":"c","notificationCount":2}}}}`, 200, []string{`"name":"projects/simulated/messages/0:`}},
		"other spelling":    {`{"message":{"token":"a","android":{"collapse_key":"c","priority":"high","notification":{"channel_id":"c"}}}}`, 200, nil},
		"an installation":   {`{"message":{"fid":"a"}}`, 200, nil},
		"a topic":           {`{"message":{"topic":"a"}}`, 200, nil},
		"a trial":           {`{"validateOnly":true,"message":{"token":"a"}}`, 200, []string{"fake_message_id"}},
		"no target":         {`{"message":{}}`, 400, []string{"FcmError", "INVALID_ARGUMENT"}},
		"two targets":       {message(`,"fid":"a"`), 400, []string{"Exactly one"}},
		"a bad token":       {`{"message":{"token":"a/b"}}`, 400, []string{"FcmError", `"field":"message.token"`}},
		"a bad fid":         {`{"message":{"fid":"a b"}}`, 400, []string{`"field":"message.fid"`}},
		"no JSON":           {`{"message":`, 400, []string{"Invalid JSON payload"}},
		"two values":        {`{"message":{"token":"a"}}{}`, 400, []string{"Invalid JSON payload"}},
		"unknown name":      {message(`,"android":{"collapsekey":"x"}`), 400, []string{`Unknown name \"collapsekey\" at 'message.android'`, "BadRequest"}},
		"the same twice":    {message(`,"android":{"collapseKey":"x","collapse_key":"y"}`), 400, []string{"Unknown name"}},
		"a number as data":  {message(`,"data":{"n":5}`), 400, []string{"message.data[n].value", "TYPE_STRING"}},
		"a text as count":   {message(`,"android":{"notification":{"notificationCount":"x"}}`), 400, []string{"TYPE_INT32"}},
		"a negative count":  {message(`,"android":{"notification":{"notificationCount":-1}}`), 400, []string{"notification_count"}},
		"a priority":        {message(`,"android":{"priority":"URGENT"}`), 400, []string{"message.android.priority"}},
		"a short ttl":       {message(`,"android":{"ttl":"3600"}`), 400, []string{"message.android.ttl"}},
		"a long ttl":        {message(`,"android":{"ttl":"2419201s"}`), 400, []string{"message.android.ttl"}},
		"from":              {message(`,"data":{"from":"x"}`), 400, []string{"FcmError", "Invalid data payload key: from", `"field":"message.data"`}},
		"message_type":      {message(`,"data":{"message_type":"x"}`), 400, []string{"Invalid data payload key"}},
		"google.":           {message(`,"data":{"google.c":"x"}`), 400, []string{"Invalid data payload key"}},
		"gcm.notification.": {message(`,"android":{"data":{"gcm.notification.e":"x"}}`), 400, []string{`"field":"message.android.data"`}},
		"4,096 bytes":       {message(`,"data":{"key":"` + long + `xxx"}`), 200, nil},
		"4,097 bytes":       {message(`,"data":{"key":"` + long + `xxxx"}`), 400, []string{"too big", "FcmError"}},
		"too much text":     {message(`,"android":{"notification":{"body":"` + long + `xxx"}}`), 400, []string{"too big"}},
		"100 KiB":           {message(`,"data":{"k":"` + strings.Repeat("x", 100<<10) + `"}`), 413, nil},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			status, answer, _, err := f.send(t.Context(), c.body)
			if err != nil || status != c.status {
				t.Fatalf("got %d %s %v, want %d", status, answer, err, c.status)
			}
			for _, want := range c.want {
				if !strings.Contains(answer, want) {
					t.Errorf("got %s, without %s", answer, want)
				}
			}
		})
	}
}

func TestWhoMaySend(t *testing.T) {
	t.Parallel()
	f := setup(t, Config{})
	post := func(path, auth string) (int, string) {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, f.URL()+path, strings.NewReader(message("")))
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Authorization", auth)
		resp, err := f.plain.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		text, _ := io.ReadAll(resp.Body)
		return resp.StatusCode, string(text)
	}
	const path = "/v1/projects/simulated/messages:send"
	if status, text := post(path, ""); status != 401 || !strings.Contains(text, "UNAUTHENTICATED") || strings.Contains(text, "FcmError") {
		t.Errorf("without a token: %d %s", status, text)
	}
	if status, _ := post(path, "Bearer invented"); status != 401 {
		t.Errorf("with an invented token: %d", status)
	}
	if status, text := post("/v2/else", ""); status != 404 || !strings.Contains(text, "<html") {
		t.Errorf("another path: %d %s", status, text)
	}
	if status, text := post("/v1/projects/simulated/messages", ""); status != 404 || !strings.Contains(text, "NOT_FOUND") {
		t.Errorf("another method: %d %s", status, text)
	}
	if status, _, _, err := f.send(t.Context(), message("")); status != 200 || err != nil {
		t.Fatalf("%d, %v", status, err)
	}
	f.Revoke()
	if status, _, _, _ := f.send(t.Context(), message("")); status != 401 {
		t.Errorf("with a revoked token: %d", status)
	}
}

func TestTheTokenEndpointChecksItsClients(t *testing.T) {
	t.Parallel()
	f := setup(t, Config{})
	change := func(name, value string) []byte {
		var all map[string]string
		if err := json.Unmarshal(f.Credentials(), &all); err != nil {
			t.Fatal(err)
		}
		all[name] = value
		text, _ := json.Marshal(all)
		return text
	}
	other, err := Start(t.Context(), Config{CredentialsFile: filepath.Join(t.TempDir(), "account.json")}) // with a key of its own
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	var foreign map[string]string
	if err := json.Unmarshal(other.Credentials(), &foreign); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		client *http.Client
		want   string
	}{
		"another account": {f.as(change("client_email", "x@y"), Scope), "account not found"},
		"another key":     {f.as(change("private_key", foreign["private_key"]), Scope), "Invalid JWT Signature"},
		"another scope":   {f.as(f.Credentials(), "https://example.com"), "invalid_scope"},
		"good":            {f.as(f.Credentials(), wider), ""},
	} {
		_, _, err := f.request(c.client, http.MethodPost, "/v1/projects/simulated/messages:send", "application/json", message(""))
		if c.want == "" && err != nil || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
			t.Errorf("%s: %v, want %q", name, err, c.want)
		}
	}
	status, answer, err := f.request(f.plain, http.MethodPost, "/token", "application/x-www-form-urlencoded", "grant_type=password")
	if status != 400 {
		t.Errorf("another grant: %d %s %v", status, answer, err)
	}
}

func TestQuotas(t *testing.T) {
	t.Parallel()
	var minutes atomic.Int64
	start := time.Now()
	f := setup(t, Config{Quota: 4, DeviceQuota: 2, TokenLife: 3 * time.Hour, Now: func() time.Time {
		return start.Add(time.Duration(minutes.Load()) * time.Minute)
	}})
	send := func(token string) (int, string, http.Header) {
		status, answer, header, err := f.send(t.Context(), `{"message":{"token":"`+token+`"}}`)
		if err != nil {
			t.Fatal(err)
		}
		return status, answer, header
	}
	send("a")
	send("a")
	if status, answer, header := send("a"); status != 429 || !strings.Contains(answer, "Device message rate") || header.Get("Retry-After") != "61" {
		t.Errorf("a third to one device: %d %s %v", status, answer, header)
	}
	send("b")
	if status, answer, _ := send("b"); status != 429 || !strings.Contains(answer, `"description":"Message rate exceeded"`) {
		t.Errorf("a fifth: %d %s", status, answer)
	}
	minutes.Add(1)
	if status, answer, _ := send("a"); status != 200 {
		t.Errorf("a minute later: %d %s", status, answer)
	}
}

func TestFaults(t *testing.T) {
	t.Parallel()
	f := setup(t, Config{})
	for token, want := range map[string]int{
		"gone-1": 404, "bad-1": 400, "foreign-1": 403, "apple-1": 401, "busy-1": 429, "error-1": 500, "down-1": 503, "goaway-1": 200,
	} {
		if status, answer, _, err := f.send(t.Context(), `{"message":{"token":"`+token+`"}}`); status != want || err != nil {
			t.Errorf("%s: %d %s %v", token, status, answer, err)
		}
	}
	f.Program("reset", 0, Answer{Fault: Reset})
	for _, token := range []string{"cut-1", "half-1", "reset"} {
		if status, answer, _, err := f.send(t.Context(), `{"message":{"token":"`+token+`"}}`); err == nil {
			t.Errorf("%s: %d %s", token, status, answer)
		}
	}
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if status, _, _, err := f.send(ctx, `{"message":{"token":"dead-1"}}`); err == nil {
		t.Errorf("dead: %d", status)
	}
	if n := f.Counts(); n.Unanswered != 4 || n.Accepted != 1 || n.Refused["UNREGISTERED"] != 1 {
		t.Errorf("got %+v", n)
	}
}

func TestAnswersByHand(t *testing.T) {
	t.Parallel()
	f := setup(t, Config{Remember: 2})
	post := func(body string) int {
		status, _, err := f.request(f.plain, http.MethodPost, "/simulator/answers", "application/json", body)
		if err != nil {
			t.Fatal(err)
		}
		return status
	}
	if status := post(`{"token":"x","stats":503}`); status != 400 {
		t.Errorf("a misspelt field: %d", status)
	}
	if status := post(`{"delay":"soon"}`); status != 400 {
		t.Errorf("a delay that is none: %d", status)
	}
	if status := post(`{"times":1,"status":503,"code":"UNAVAILABLE","retry_after":"7","delay":"1ms"}`); status != 204 {
		t.Fatalf("got %d", status)
	}
	if status, answer, header, _ := f.send(t.Context(), message("")); status != 503 || header.Get("Retry-After") != "7" {
		t.Errorf("%d %s %v", status, answer, header)
	}
	for i := range 3 {
		if status, answer, _, _ := f.send(t.Context(), message(fmt.Sprintf(`,"data":{"n":"%d"}`, i))); status != 200 {
			t.Errorf("%d %s", status, answer)
		}
	}
	_, text, err := f.request(f.plain, http.MethodGet, "/simulator/received", "", "")
	if strings.Contains(text, `"n":"0"`) || strings.Count(text, `"n":"`) != 2 {
		t.Errorf("got %s %v", text, err)
	}
}

func TestTheKeyOfAnAccountIsKept(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "account.json")
	first := setup(t, Config{CredentialsFile: file, Hosts: []string{"localhost"}})
	second := setup(t, Config{CredentialsFile: file})
	if !first.key.Equal(second.key) {
		t.Error("the second has another key")
	}
	text, err := os.ReadFile(file)
	if err != nil || !bytes.Equal(text, second.Credentials()) {
		t.Errorf("the file is not the second's: %v", err)
	}
	if !bytes.Contains(first.Credentials(), []byte("https://localhost:")) {
		t.Errorf("its token endpoint has another name: %s", first.Credentials())
	}
	if err := os.WriteFile(file, []byte(`{"type":"authorized_user"}`), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Start(t.Context(), Config{CredentialsFile: file}); err == nil || !strings.Contains(err.Error(), "not a service account") {
		t.Errorf("got %v", err)
	}
}
