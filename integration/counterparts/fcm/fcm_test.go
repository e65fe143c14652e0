// Package fcm holds Whisper's FCM provider and its simulator against what Google itself publishes: every body decodes strictly into
// Google's generated type, and firebase-admin's client is served by the simulator. It is a module of its own, so that their
// dependencies don't mix with Whisper's.
package fcm

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	firebase "firebase.google.com/go/v4"
	"firebase.google.com/go/v4/messaging"
	"github.com/VictoriaMetrics/metrics"
	"golang.org/x/oauth2"
	"golang.org/x/oauth2/google"
	fcmapi "google.golang.org/api/fcm/v1"
	"google.golang.org/api/option"

	"github.com/klivvr/whisper/consumers/push/fcm"
	"github.com/klivvr/whisper/consumers/push/fcm/simulator"
	"github.com/klivvr/whisper/domain/whisperv1"
)

func start(t *testing.T) *simulator.Simulator {
	t.Helper()
	s, err := simulator.Start(t.Context(), simulator.Config{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	return s
}

// TestEveryBodyIsGooglesType sends messages of every form and decodes what came into the type that Google generates from its API: a
// name or a type that is not Google's is an error.
func TestEveryBodyIsGooglesType(t *testing.T) {
	t.Parallel()
	s := start(t)
	sent := 0
	for _, format := range []fcm.Format{
		{}, {Target: fcm.TargetFID}, {DataCategories: []string{"transactions"}}, {ChannelID: "all", Sound: "none"},
	} {
		p, err := fcm.New(fcm.Config{
			CredentialsJSON: s.Credentials(), BaseURL: s.URL(), RootCAs: s.RootCAs(), Format: format, Metrics: metrics.NewSet(),
		})
		if err != nil {
			t.Fatal(err)
		}
		for _, lane := range []whisperv1.Lane{whisperv1.Lane_LANE_HIGH, whisperv1.Lane_LANE_NORMAL, whisperv1.Lane_LANE_LOW} {
			for _, collapse := range []string{"", "balance"} {
				for _, retract := range []bool{false, true} {
					for _, body := range []string{"", "120.50 EGP at <Café>", strings.Repeat("مرحبا 👨‍👩‍👧‍👦 ", 400)} {
						push := &whisperv1.Push{
							DeliveryId: make([]byte, 16), NotificationId: fmt.Sprint("n", sent), UserId: "mona", Lane: lane, Attempt: 1,
							Channel: "fcm", Token: "dQw4:APA91b-_x", CollapseKey: collapse, Category: "transactions.card", Retract: retract,
							ExpiresAtMs: time.Now().Add(time.Duration(sent) * time.Hour).Add(time.Minute).UnixMilli(),
						}
						if !retract {
							push.Content = &whisperv1.Content{
								Title: "Card", Body: body, Url: "klivvr://card/1?a=b&c=d", Image: "https://i.example/1.png",
								Data: []byte(`{"from":"x","google.a":1,"n":[1,2]}`),
							}
						}
						if r := p.Send(t.Context(), push); !r.Sent() {
							t.Fatalf("got %+v", r)
						}
						sent++
					}
				}
			}
		}
		p.Close()
	}
	received := s.Received()
	if len(received) != sent || sent != 144 {
		t.Fatalf("%d of %d came", len(received), sent)
	}
	for _, r := range received {
		decoder := json.NewDecoder(bytes.NewReader(r.Body))
		decoder.DisallowUnknownFields()
		var request fcmapi.SendMessageRequest
		if err := decoder.Decode(&request); err != nil {
			t.Errorf("%v\n%s", err, r.Body)
		}
		if m := request.Message; m == nil || m.Token == "" && !bytes.Contains(r.Body, []byte(`"fid":"dQw4`)) || m.Android == nil {
			t.Errorf("what Google reads lacks something: %s", r.Body)
		}
	}
}

// TestFirebaseAdminIsServed drives the simulator by Google's own client, with its errors.
func TestFirebaseAdminIsServed(t *testing.T) {
	t.Parallel()
	s := start(t)
	trusting := &http.Client{Transport: &http.Transport{
		TLSClientConfig: &tls.Config{RootCAs: s.RootCAs(), MinVersion: tls.VersionTLS12}, ForceAttemptHTTP2: true,
	}}
	account, err := google.JWTConfigFromJSON(s.Credentials(), simulator.Scope)
	if err != nil {
		t.Fatal(err)
	}
	client := account.Client(context.WithValue(t.Context(), oauth2.HTTPClient, trusting))
	app, err := firebase.NewApp(
		t.Context(), &firebase.Config{ProjectID: s.Project()}, option.WithHTTPClient(client), option.WithEndpoint(s.URL()+"/v1"),
	)
	if err != nil {
		t.Fatal(err)
	}
	admin, err := app.Messaging(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	ttl, count := time.Hour, 2
	message := func(token string) *messaging.Message {
		return &messaging.Message{
			Token: token, Data: map[string]string{"id": "pay-1"}, Notification: &messaging.Notification{Title: "Card", Body: "120.50 EGP"},
			Android: &messaging.AndroidConfig{
				CollapseKey: "card", Priority: "high", TTL: &ttl,
				Notification: &messaging.AndroidNotification{Tag: "pay-1", ChannelID: "cards", NotificationCount: &count},
			},
		}
	}
	name, err := admin.Send(t.Context(), message("phone"))
	if err != nil || !strings.HasPrefix(name, "projects/simulated/messages/") {
		t.Fatalf("got %q, %v", name, err)
	}
	if name, err := admin.SendDryRun(t.Context(), message("phone")); err != nil || !strings.HasSuffix(name, "fake_message_id") {
		t.Errorf("a trial: %q, %v", name, err)
	}
	for token, is := range map[string]func(error) bool{
		"gone-1": messaging.IsUnregistered, "bad-1": messaging.IsInvalidArgument, "foreign-1": messaging.IsSenderIDMismatch,
		"apple-1": messaging.IsThirdPartyAuthError, "error-1": messaging.IsInternal, "busy-1": messaging.IsQuotaExceeded,
	} {
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second) // the client tries some again by itself
		if _, err := admin.Send(ctx, message(token)); !is(err) && ctx.Err() == nil {
			t.Errorf("%s: the client calls it %v", token, err)
		}
		cancel()
	}
	if n := s.Counts().Accepted; n != 1 {
		t.Errorf("%d were taken", n)
	}
}
