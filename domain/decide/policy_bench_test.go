package decide

import (
	"fmt"
	"runtime"
	"syscall"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/klivvr/whisper/domain"
	"github.com/klivvr/whisper/domain/category"
	"github.com/klivvr/whisper/domain/whisperv1"
)

func benchCategory(tb testing.TB, s *State, name, rules string) {
	tb.Helper()
	c, err := category.Parse(name, []byte(rules))
	if err != nil {
		tb.Fatal(err)
	}
	s.Decide(CategoryChanged{Name: name, Category: c}, time.UnixMilli(1))
}

func encodedProfile(tb testing.TB, p *whisperv1.Profile) []byte {
	tb.Helper()
	encoded, err := proto.MarshalOptions{Deterministic: true}.Marshal(p)
	if err != nil {
		tb.Fatal(err)
	}
	return encoded
}

// judged is a State and questions to it, from a user without anything special to one with everything.
func judged(tb testing.TB) (s *State, plain, special *asked) {
	tb.Helper()
	s = NewState(0, DefaultPolicy())
	benchCategory(tb, s, "transactions", `{}`)
	benchCategory(tb, s, "promo", `{"caps":[{"n":3,"per":"day"},{"n":10,"per":"week","by":"user"}]}`)
	now := time.Date(2026, 11, 24, 12, 0, 0, 0, time.UTC)
	s.RestoreUser("omar", encodedProfile(tb, &whisperv1.Profile{Locale: "ar-EG", Timezone: "Africa/Cairo", Attributes: []byte(`{"name":"Omar"}`)}))
	s.RestoreUser("mona", encodedProfile(tb, &whisperv1.Profile{
		Locale: "ar-EG", Timezone: "Africa/Cairo", Attributes: []byte(`{"name":"Mona"}`),
		Preferences: []byte(`{"news":{"apns":false},"promo":{"apns":false,"socket":true}}`),
		QuietHours:  []byte(`{"from":"22:00","to":"07:00"}`),
	}))
	for i := range 2 {
		s.RestoreCounted(Count{User: "mona", Category: "promo", Hash: domain.DeliveryHash{byte(i)}, At: now.Add(-time.Hour)})
	}
	question := func(user, category string) *asked {
		return &asked{
			category: s.category(category), named: category, user: user, profile: s.users.ProfileOf(user),
			channels: domain.DefaultChannels, expires: now.Add(time.Hour).UnixMilli(), now: now,
		}
	}
	return s, question("omar", "transactions.card"), question("mona", "promo")
}

func TestJudgingAllocatesNothing(t *testing.T) { //nolint:paralleltest // AllocsPerRun counts everybody's
	s, plain, special := judged(t)
	for name, q := range map[string]*asked{"plain": plain, "special": special} {
		if v := s.judge(q); v.action != send {
			t.Fatalf("%s: %+v", name, v)
		}
		if n := testing.AllocsPerRun(1000, func() { s.judge(q) }); n > 0 {
			t.Errorf("%s: %v allocations", name, n)
		}
	}
}

// BenchmarkJudge is what the policy costs a delivery: of a user about whom nothing is said in a category
// without caps, and of one with preferences, quiet hours and two caps.
func BenchmarkJudge(b *testing.B) {
	s, plain, special := judged(b)
	for _, c := range []struct {
		name string
		q    *asked
	}{{"plain", plain}, {"special", special}} {
		b.Run(c.name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if s.judge(c.q).action != send {
					b.Fatal("not sent")
				}
			}
		})
	}
}

// benchUser is a user with a locale, a zone, four attributes and one endpoint.
func benchUser(tb testing.TB, i int) []byte {
	return encodedProfile(tb, &whisperv1.Profile{
		Locale: "ar-EG", Timezone: "Africa/Cairo",
		Attributes:    fmt.Appendf(nil, `{"country":"EG","name":"Mona %d","plan":"gold","since":"2021"}`, i),
		Endpoints:     []*whisperv1.Endpoint{{Name: "iphone", Channel: "apns", Token: fmt.Sprintf("%064x", i), App: "com.klivvr.app", RegisteredAtMs: 1_700_000_000_000}},
		ChangesOffset: int64(i) + 1_000_000,
	})
}

// BenchmarkState is the memory and the restoring of 1,000,000 users of one process over 24 partitions, each
// of whom was sent two deliveries that caps count. The CPU is of restoring alone: records are made before.
func BenchmarkState(b *testing.B) {
	const users, states = 1_000_000, 24
	type record struct {
		key     string
		profile []byte
	}
	for b.Loop() {
		b.StopTimer()
		all, encoded := make([]record, users), 0
		for i := range all {
			all[i] = record{fmt.Sprint("user-", i), benchUser(b, i)}
			encoded += len(all[i].profile)
		}
		hashes := make([][2]domain.DeliveryHash, users) // as the log has them
		for i, r := range all {
			hashes[i] = [2]domain.DeliveryHash{domain.HashDelivery(r.key, "0"), domain.HashDelivery(r.key, "1")}
		}
		var before, after runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&before)
		began := cpuTime(b)
		b.StartTimer()
		held := make([]*State, states)
		for i := range held {
			held[i] = NewState(int32(i), DefaultPolicy())
		}
		for i, r := range all {
			held[i%states].RestoreUser(string([]byte(r.key)), r.profile) // as the record's key is copied
		}
		at := time.UnixMilli(1_700_000_000_000)
		for n := range 2 {
			for i, r := range all {
				held[i%states].RestoreCounted(Count{User: string([]byte(r.key)), Category: "promo", Hash: hashes[i][n], At: at})
			}
		}
		for _, s := range held {
			s.ReplayDone()
		}
		b.StopTimer()
		b.ReportMetric((cpuTime(b) - began).Seconds(), "CPU-s/restore")
		runtime.GC()
		runtime.ReadMemStats(&after)
		began = cpuTime(b)
		runtime.GC()
		b.ReportMetric(float64((cpuTime(b) - began).Milliseconds()), "CPU-ms/collection")
		b.ReportMetric((float64(after.HeapAlloc)-float64(before.HeapAlloc))/users, "B/user")
		b.ReportMetric(float64(encoded)/users, "encoded-B/user")
		runtime.KeepAlive(held)
		runtime.KeepAlive(all)
		runtime.KeepAlive(hashes)
		b.StartTimer()
	}
}

func cpuTime(b *testing.B) time.Duration {
	b.Helper()
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
