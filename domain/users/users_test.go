package users

import (
	"bytes"
	"fmt"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/klivvr/whisper/domain/profile"
)

// TestUsersKeepWhatWasPutLast for every user and kind, whatever was replaced and forgotten between, and hold no more than
// half as much again beside what is being filled.
func TestUsersKeepWhatWasPutLast(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		users := NewTable()
		var want [kinds]map[string][]byte
		for kind := range want {
			want[kind] = map[string][]byte{}
		}
		handed := map[string]string{} // a view of then, and what it showed
		ids := rapid.IntRange(1, 60).Draw(t, "ids")
		for step := range rapid.IntRange(1, 400).Draw(t, "steps") {
			user := fmt.Sprint("user-", rapid.IntRange(0, ids).Draw(t, "user"))
			kind := Kind(rapid.IntRange(0, int(kinds)-1).Draw(t, "kind"))
			if rapid.IntRange(0, 9).Draw(t, "forget") == 0 {
				_, had := want[kind][user]
				delete(want[kind], user)
				forget := users.ForgetProfile
				if kind != kindProfile {
					forget = func(user string) bool { return users.Forget(user, kind) }
				}
				if got := forget(user); got != had {
					t.Fatalf("%s had %d: %t, want %t", user, kind, got, had)
				}
				continue
			}
			size := rapid.SampledFrom([]int{0, 1, 100, 300, 1000, largeText - 100, largeText, profile.MaxBytes}).Draw(t, "size")
			text := bytes.Repeat([]byte{byte('a' + step%26)}, size)
			if kind == kindProfile {
				users.PutProfile(user, text)
			} else {
				users.Put(users.Add(user), kind, text)
			}
			want[kind][user] = text
			if got, _ := users.Get(user, kind); len(got) > 0 {
				handed[got[:1]+fmt.Sprint(step)] = got
			}
		}
		live := 0
		for kind := range kinds {
			for i := range ids + 1 {
				user := fmt.Sprint("user-", i)
				got, ok := users.Get(user, kind)
				text, kept := want[kind][user]
				if ok != kept || got != string(text) {
					t.Fatalf("%s has %t %d bytes of kind %d, want %t %d", user, ok, len(got), kind, kept, len(text))
				}
				live += len(text) + 7
			}
		}
		if users.Known != len(want[kindProfile]) {
			t.Fatalf("%d are known, want %d", users.Known, len(want[kindProfile]))
		}
		for first, got := range handed {
			if strings.Trim(got, first[:1]) != "" {
				t.Fatalf("what was handed out as %s changed", first)
			}
		}
		held := 0
		for block, text := range users.texts.texts {
			if block != users.texts.last {
				held += len(text)
			}
		}
		if held > live+live/2+blockSize {
			t.Fatalf("%d bytes are held for %d", held, live)
		}
	})
}

// TestEarlierViewsStayRight when what they show was replaced, and its block given back.
func TestEarlierViewsStayRight(t *testing.T) {
	t.Parallel()
	users := NewTable()
	users.PutProfile("a", []byte("the first"))
	view := users.ProfileOf("a")
	for i := range 10_000 {
		users.PutProfile("a", fmt.Appendf(nil, "another one, %d", i))
	}
	if view != "the first" || users.ProfileOf("a") != "another one, 9999" {
		t.Errorf("views are %q and %q", view, users.ProfileOf("a"))
	}
	if n := len(users.texts.texts); n > 4 {
		t.Errorf("one user holds %d blocks", n)
	}
}
