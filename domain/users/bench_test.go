package users

import (
	"fmt"
	"math/rand/v2"
	"runtime"
	"testing"
)

// BenchmarkUsersChurn is one profile that is replaced; memory is what a user costs when each profile was replaced some five
// times in no order, which is when the blocks are emptiest.
func BenchmarkUsersChurn(b *testing.B) {
	const users, size = 100_000, 198
	names, profile := make([]string, users), make([]byte, size)
	for i := range names {
		names[i] = fmt.Sprint("user-", i)
	}
	rng := rand.New(rand.NewPCG(1, 2))
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	table := NewTable()
	replace := func() { table.PutProfile(names[rng.IntN(users)], profile) }
	for _, name := range names {
		table.PutProfile(name, profile)
	}
	for range 5 * users {
		replace()
	}
	runtime.GC()
	runtime.ReadMemStats(&after)
	for b.Loop() {
		replace()
	}
	b.ReportMetric((float64(after.HeapAlloc)-float64(before.HeapAlloc))/users, "B/user")
	runtime.KeepAlive(table)
	runtime.KeepAlive(names)
}
