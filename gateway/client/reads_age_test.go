package client

import (
	"errors"
	"slices"
	"testing"
	"time"
)

// TestAReadWithoutAReceiptIsDroppedAfterADay: the server would take it for the read of a later use of the id.
func TestAReadWithoutAReceiptIsDroppedAfterADay(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 11, 23, 9, 0, 0, 0, time.UTC)
	connected, forgotten := false, 0
	var told []key
	r := &reads{
		now:    func() time.Time { return now },
		forgot: func(n int) { forgotten += n },
		send: func(of []key) error {
			if !connected {
				return errors.New("not connected")
			}
			told = append(told, of...)
			return nil
		},
	}
	seen := func(of key) {
		r.add([]key{of})
		r.tell()
	}
	seen(key{"weekly", ""})
	seen(key{"weekly", "w1"})
	now = now.Add(maxReadAge / 2)
	seen(key{"later", ""})
	now = now.Add(maxReadAge/2 + time.Second)
	connected = true
	r.tell()
	if want := []key{{"weekly", "w1"}, {"later", ""}}; !slices.Equal(told, want) || forgotten != 1 {
		t.Errorf("told %v, want %v; %d forgotten", told, want, forgotten)
	}

	// In doubt over one connection, and the next is made days later.
	r.lost()
	now, told = now.Add(3*maxReadAge), nil
	r.tell()
	if want := []key{{"weekly", "w1"}}; !slices.Equal(told, want) || forgotten != 2 {
		t.Errorf("told again %v, want %v; %d forgotten", told, want, forgotten)
	}
}
