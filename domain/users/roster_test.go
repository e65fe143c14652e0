package users

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/klivvr/whisper/domain"
)

// TestRosterIsTheSortedSet of all ids that were ever added, whatever comes between the sorts.
func TestRosterIsTheSortedSet(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		users := NewTable()
		ever := map[string]bool{}
		for range rapid.IntRange(1, 5).Draw(t, "sorts") {
			for _, id := range rapid.SliceOfN(rapid.StringN(0, 12, domain.MaxIDBytes), 0, 40).Draw(t, "ids") {
				if own := users.Own(users.Intern(id)); own != id {
					t.Fatalf("added %q, keeps %q", id, own)
				}
				ever[id] = true
			}
			users.Sort()
			var want, got []string
			for id := range ever {
				want = append(want, id)
			}
			slices.Sort(want)
			for i := range users.Len() {
				got = append(got, users.At(i))
			}
			if !slices.Equal(got, want) {
				t.Fatalf("got %q, want %q", got, want)
			}
			probe := rapid.StringN(0, 12, domain.MaxIDBytes).Draw(t, "probe")
			if got, want := users.After(probe), After(want, probe); got != want {
				t.Fatalf("%q belongs at %d, got %d", probe, want, got)
			}
			if _, known := users.Ref(probe); known != ever[probe] {
				t.Fatalf("%q is there: %t", probe, known)
			}
		}
	})
}

// TestIDsOfAllLengths fill blocks to their last byte and go on in the next.
func TestIDsOfAllLengths(t *testing.T) {
	t.Parallel()
	var s idStore
	var refs []IDRef
	var want []string
	for i := range 5_000 {
		id := strings.Repeat(string(rune('a'+i%26)), i%(domain.MaxIDBytes+1))
		want, refs = append(want, id), append(refs, s.put(id))
	}
	for i, ref := range refs {
		if got := s.get(ref); got != want[i] {
			t.Fatalf("id %d is %q, want %q", i, got, want[i])
		}
	}
	if len(s.texts) < 5_000*domain.MaxIDBytes/2/blockSize {
		t.Errorf("%d ids are in %d blocks", len(refs), len(s.texts))
	}
}

// BenchmarkRosterSort is the first order of the users of one of 24 partitions of a million: nothing else is decided
// meanwhile.
func BenchmarkRosterSort(b *testing.B) {
	for b.Loop() {
		b.StopTimer()
		var r roster
		for i := range 1_000_000 / 24 {
			r.enter(fmt.Sprint("user-", i*7919%1_000_000))
		}
		b.StartTimer()
		r.Sort()
	}
}
