package integration

import "testing"

// has says how many of the audience got a notification.
func (a *audience) has(note string) (n int) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, notes := range a.got {
		if _, ok := notes[note]; ok {
			n++
		}
	}
	return n
}

// TestABroadcastToThoseConnectedNeedsNoProfile: users of whom nothing is known but their sockets get it, and it ends. Who is
// not connected is no part of it, and who connects afterwards does not get it.
func TestABroadcastToThoseConnectedNeedsNoProfile(t *testing.T) {
	const online = 6
	people(t, "offline", 4)
	a := connect(t, "online", online)
	hello := func(id string, a *audience) { // who has this is known to dispatch as connected
		cast(t, map[string]any{"id": id, "to": map[string]any{"users": a.users}, "content": map[string]any{"body": "hello"}})
		eventually(t, "all have "+id, func() bool { return a.has(id) == len(a.users) })
	}
	hello("online-hello", a)
	cast(t, map[string]any{
		"id": "online-1", "to": map[string]any{"connected": true}, "content": map[string]any{"title": "Maintenance", "body": "We are back at six."},
	})
	eventually(t, "everybody who is connected has it", func() bool { return a.has("online-1") == online })
	finished(t, "online-1", "finished", -1)
	const rows = `SELECT count(*) FROM whisper.deliveries WHERE notification_id = 'online-1' AND starts_with(user_id, $1)`
	if n := number(t, rows+` AND status IN ('delivered', 'read')`, "online-"); n != online {
		t.Errorf("%d of %d are delivered", n, online)
	}
	if n := number(t, rows, "offline-"); n != 0 {
		t.Errorf("it has %d rows of users who are not connected", n)
	}
	late := connect(t, "late", 2)
	hello("late-hello", late)
	if n := late.has("online-1"); n > 0 {
		t.Errorf("%d who came later have it", n)
	}
}
