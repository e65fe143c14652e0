package dispatch

import (
	"fmt"
	"runtime"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"google.golang.org/protobuf/proto"

	"github.com/klivvr/whisper/domain"
	"github.com/klivvr/whisper/domain/decide"
	"github.com/klivvr/whisper/domain/whisperv1"
)

// heap is what is held, garbage left out.
func heap() float64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return float64(m.HeapAlloc)
}

// awayTimers are the records of a broadcast and of the users who are away, as whisper.timers has them.
func awayTimers(tb testing.TB, users int, each func(*kgo.Record)) {
	at := time.UnixMilli(1_700_000_000_000)
	put := func(id domain.DeliveryID, m *whisperv1.Parked) {
		value, err := proto.Marshal(m)
		if err != nil {
			tb.Fatal(err)
		}
		each(&kgo.Record{Key: id[:], Value: value})
	}
	cast := domain.NewDeliveryID(at, domain.HashDelivery("news", ""))
	put(cast, &whisperv1.Parked{Walk: &whisperv1.Walk{StartedMs: at.UnixMilli(), Audience: int64(users), Accepted: &whisperv1.Event{
		DeliveryId: cast[:], NotificationId: "news", Lane: whisperv1.Lane_LANE_LOW,
		Kind: &whisperv1.Event_BroadcastAccepted{BroadcastAccepted: &whisperv1.BroadcastAccepted{Partitions: 1, Accepted: &whisperv1.DeliveryAccepted{
			Category: "default", Content: &whisperv1.Content{Title: "t", Body: "b"}, Channels: []string{domain.ChannelSocket},
			AcceptedAtMs: at.UnixMilli(), ExpiresAtMs: at.Add(time.Hour).UnixMilli(), Request: &whisperv1.Position{Topic: "whisper.requests.low", Offset: 1},
		}}},
	}}})
	for i := range users {
		user := fmt.Sprint("user-", i)
		put(domain.NewDeliveryID(at, domain.HashDelivery("news", user)), &whisperv1.Parked{Broadcast: cast[:], UserId: user, Phase: whisperv1.Phase_PHASE_AWAY})
	}
}

// restoreAway does with those records what a restore does, and says what is held at its stages, for each user.
func restoreAway(tb testing.TB, users int) (collected, folded, restored float64) {
	p := &partition{role: &Role{poison: newPoison()}, state: decide.NewState(0, decide.DefaultPolicy())}
	for i := range users { // their profiles are there already
		p.state.RestoreUser(fmt.Sprint("user-", i), []byte{})
	}
	before := heap()
	parked := map[string]string{}
	awayTimers(tb, users, func(rec *kgo.Record) {
		if err := collectParked(parked, rec); err != nil {
			tb.Fatal(err)
		}
	})
	collected = heap()
	if err := p.restoreParked(parked); err != nil {
		tb.Fatal(err)
	}
	folded = heap() // with the empty map
	parked = nil
	p.state.ReplayDone()
	p.state.Resume(time.UnixMilli(1_700_000_000_001))
	restored = heap()
	if st := p.state.Stats(); st.Away != users {
		tb.Fatalf("%d are away", st.Away)
	}
	runtime.KeepAlive(p)
	n := float64(users)
	return (collected - before) / n, (folded - before) / n, (restored - before) / n
}

// BenchmarkRestoreAway is the memory that users take who are away, while they are restored.
func BenchmarkRestoreAway(b *testing.B) {
	for _, users := range []int{50_000, 200_000} {
		b.Run(fmt.Sprint(users), func(b *testing.B) {
			for b.Loop() {
				collected, folded, restored := restoreAway(b, users)
				b.ReportMetric(collected, "B-collected/user")
				b.ReportMetric(folded, "B-folded/user")
				b.ReportMetric(restored, "B-restored/user")
			}
		})
	}
}

// TestARestoreKeepsUsersWhoAreAwayInFewBytes: they are most of what is parked, and a takeover has all of them at once.
func TestARestoreKeepsUsersWhoAreAwayInFewBytes(t *testing.T) { //nolint:paralleltest // it measures everybody's memory
	const users = 20_000
	if collected, folded, _ := restoreAway(t, users); collected > 250 || folded > 150 {
		t.Errorf("%.0f B a user when all are read, %.0f when they are folded", collected, folded)
	}
}
