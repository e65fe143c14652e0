package integration

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
)

// categories declares some and waits until dispatch goes by them; only what is sent afterwards is sure to.
func categories(t *testing.T, yaml string) {
	t.Helper()
	file := filepath.Join(t.TempDir(), "categories.yaml")
	if err := os.WriteFile(file, []byte(yaml), 0o600); err != nil {
		t.Fatal(err)
	}
	if out, err := sys.command(t.Context(), "categories", "apply", "-f", file).CombinedOutput(); err != nil {
		t.Fatalf("whisper categories apply: %v\n%s", err, out)
	}
}

// profile writes a patch, or an empty record, and waits until dispatch has merged it.
func profile(t *testing.T, user, patch string) {
	t.Helper()
	before := endOf(t, "whisper.users")
	rec := &kgo.Record{Topic: "whisper.profiles", Key: []byte(user), Value: []byte(patch)}
	if err := sys.kafka.ProduceSync(t.Context(), rec).FirstErr(); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the profile of "+user+" is known", func() bool { return endOf(t, "whisper.users") > before })
}

// stands waits until a user's delivery of a notification has a status and a reason.
func stands(t *testing.T, id, user, status, reason string) {
	t.Helper()
	eventually(t, fmt.Sprintf("%s stands at %s %s", id, status, reason), func() bool {
		return number(t, `SELECT count(*) FROM whisper.deliveries WHERE notification_id = $1 AND user_id = $2 AND status::text = $3 AND coalesce(reason, '') = $4`, id, user, status, reason) == 1
	})
}

// TestWhatIsHeldAndWhatIsCountedOutliveDispatch: a hold for quiet hours is let out on time, and a cap holds,
// by a dispatch that was started after the one that decided was killed.
func TestWhatIsHeldAndWhatIsCountedOutliveDispatch(t *testing.T) {
	categories(t, "it-news: {quiet_hours: hold}\nit-promo: {caps: [{n: 2, per: week}]}\nit-alarm: {mandatory: true}\n")
	a := connect(t, "policy", 1)
	user := a.users[0]
	for i := range 2 {
		send(t, "normal", request{ID: fmt.Sprintf("policy-promo-%d", i), Category: "it-promo", To: to(user)})
		stands(t, fmt.Sprintf("policy-promo-%d", i), user, "delivered", "")
	}
	send(t, "normal", request{ID: "policy-promo-2", Category: "it-promo", To: to(user)})
	stands(t, "policy-promo-2", user, "suppressed", "cap")

	// Quiet hours end at a full minute. On a machine that is too busy they may be over before it is held: then with the next ones.
	var held string
	var end time.Time
	for try := 0; held == ""; try++ {
		end = time.Now().UTC().Truncate(time.Minute).Add(time.Minute)
		if time.Until(end) < 12*time.Second {
			end = end.Add(time.Minute)
		}
		profile(t, user, fmt.Sprintf(`{"quiet_hours":{"from":%q,"to":%q}}`, end.Add(-3*time.Minute).Format("15:04"), end.Format("15:04")))
		id := fmt.Sprintf("policy-held-%d", try)
		send(t, "normal", request{ID: id, Category: "it-news", To: to(user)})
		alarm := fmt.Sprintf("policy-alarm-%d", try)
		send(t, "high", request{ID: alarm, Category: "it-alarm", To: to(user)})
		stands(t, alarm, user, "delivered", "")
		eventually(t, id+" is held, or went after quiet hours", func() bool {
			if number(t, `SELECT count(*) FROM whisper.deliveries WHERE notification_id = $1 AND status = 'deferred' AND reason = 'quiet_hours'`, id) == 1 {
				held = id
			}
			return held != "" || number(t, `SELECT count(*) FROM whisper.deliveries WHERE notification_id = $1 AND status = 'delivered'`, id) == 1
		})
		if held == "" && try == 4 {
			t.Fatal("nothing was held in quiet hours")
		}
	}
	sys.kill(t, "dispatch")
	sys.restart(t, "dispatch")

	send(t, "normal", request{ID: "policy-promo-3", Category: "it-promo", To: to(user)})
	stands(t, held, user, "delivered", "")
	var sent time.Time
	if err := sys.db.QueryRow(t.Context(), `SELECT sent_at FROM whisper.deliveries WHERE notification_id = $1`, held).Scan(&sent); err != nil {
		t.Fatal(err)
	}
	if sent.Before(end) {
		t.Errorf("sent at %s, in quiet hours until %s", sent.UTC(), end)
	}
	// In quiet hours it is held, and after them it exceeds the cap.
	stands(t, "policy-promo-3", user, "suppressed", "cap")
	var detail string
	err := sys.db.QueryRow(t.Context(), `
		SELECT concat_ws(', ', detail ->> 'cap', detail ->> 'count', detail ->> 'category') FROM whisper.timeline AS l JOIN whisper.deliveries AS d USING (delivery_id, day)
		WHERE d.notification_id = 'policy-promo-3' AND l.kind = 'delivery_suppressed' LIMIT 1`).Scan(&detail)
	if err != nil || detail != "2 per week by user_category, 2, it-promo" {
		t.Errorf("the fact says %q, %v", detail, err)
	}
}

// TestADigestIsADeliveryOfItsOwn: gathered deliveries end with a reference to the digest, and all counts add up.
func TestADigestIsADeliveryOfItsOwn(t *testing.T) {
	tmpl := &kgo.Record{Topic: "whisper.templates", Key: []byte("it-digest"), Value: []byte(`{"default_locale":"en","locales":{"en":{"title":"{{ count }} new"}}}`)}
	if err := sys.kafka.ProduceSync(t.Context(), tmpl).FirstErr(); err != nil {
		t.Fatal(err)
	}
	categories(t, "it-chat: {digest: {window: 3s, template: it-digest}}\n")
	a := connect(t, "digest", 1)
	user := a.users[0]
	for i := range 3 {
		send(t, "normal", request{ID: fmt.Sprintf("digest-part-%d", i), Category: "it-chat", To: to(user)})
	}
	for i := range 3 {
		stands(t, fmt.Sprintf("digest-part-%d", i), user, "suppressed", "digested")
	}
	eventually(t, "the digest is delivered", func() bool {
		return number(t, `SELECT count(*) FROM whisper.deliveries WHERE notification_id LIKE 'digest/%' AND user_id = $1 AND status = 'delivered'`, user) == 1
	})
	if n := number(t, `SELECT count(DISTINCT l.detail ->> 'instead') FROM whisper.timeline AS l JOIN whisper.deliveries AS d USING (delivery_id, day)
		WHERE d.notification_id LIKE 'digest-part-%' AND l.kind = 'delivery_suppressed'`); n != 1 {
		t.Errorf("the parts name %d digests", n)
	}
	if open := number(t, `SELECT count(*) FROM whisper.conservation WHERE notification_id LIKE 'digest%'`); open != 0 {
		t.Errorf("%d notifications do not add up", open)
	}
}

// TestErasureReachesPostgres: the user is gone from the tables, what waited has ended, and the counts add up.
func TestErasureReachesPostgres(t *testing.T) {
	const user = "erase-me@example.com"
	profile(t, user, `{"locale":"ar-EG","attributes":{"name":"Mona"}}`)
	send(t, "normal", request{ID: "erase-1", To: to(user, "erase-other"), TTL: "1h"})
	stands(t, "erase-1", user, "deferred", "away")
	profile(t, user, "")
	eventually(t, "the user is out of the tables", func() bool {
		return number(t, `SELECT count(*) FROM whisper.deliveries WHERE user_id = $1`, user) == 0
	})
	eventually(t, "what waited has ended", func() bool {
		return number(t, `SELECT count(*) FROM whisper.deliveries WHERE notification_id = 'erase-1' AND user_id LIKE 'erased:%' AND status = 'suppressed' AND reason = 'erased'`) == 1
	})
	if n := number(t, `SELECT recipients FROM whisper.notifications WHERE notification_id = 'erase-1'`); n != 2 {
		t.Errorf("%d recipients are left of 2", n)
	}
	if open := number(t, `SELECT count(*) FROM whisper.conservation WHERE notification_id = 'erase-1'`); open != 0 {
		t.Error("the notification does not add up any more")
	}
}
