package users

import (
	"fmt"
	"hash/maphash"
	"math/rand/v2"
	"runtime"
	"testing"
	"time"
)

// BenchmarkTable compares the table with Go's own maps: the time of a lookup (all of them in no order), the memory of a user
// without a profile, and the time of one whole garbage collection. map[uint64]uint32 and map[uint32]uint32 go by the id's
// hash and keep the ids in blocks, as the table does; map[string]string keeps each id and profile by itself.
func BenchmarkTable(b *testing.B) {
	for _, n := range []int{41_666, 1_000_000} { // one of 24 partitions of a million, and all of them
		names := make([]string, n)
		for i := range names {
			names[i] = fmt.Sprint("user-", i)
		}
		for _, kept := range []struct {
			name  string
			build func() func(user string) bool
		}{
			{"table", func() func(string) bool {
				t := NewTable()
				for _, user := range names {
					t.Add(user)
				}
				return func(user string) bool { _, ok := t.Ref(user); return ok }
			}},
			{"map[uint64]uint32", func() func(string) bool { return byHash(names, func(h uint64) uint64 { return h }) }},
			{"map[uint32]uint32", func() func(string) bool { return byHash(names, func(h uint64) uint32 { return uint32(h) }) }},
			{"map[string]string", func() func(string) bool {
				t := map[string]string{}
				for _, user := range names {
					t[string([]byte(user))] = ""
				}
				return func(user string) bool { _, ok := t[user]; return ok }
			}},
		} {
			b.Run(fmt.Sprintf("%s/%d", kept.name, n), func(b *testing.B) {
				order := rand.New(rand.NewPCG(1, 2)).Perm(n)
				before := heapInUse()
				find := kept.build()
				size := heapInUse() - before
				began := time.Now()
				runtime.GC()
				collection := time.Since(began)
				i := 0
				for b.Loop() {
					if !find(names[order[i]]) {
						b.Fatal("a user is missing")
					}
					if i++; i == n {
						i = 0
					}
				}
				b.ReportMetric(size/float64(n), "B/user")
				b.ReportMetric(float64(collection.Microseconds()), "collection-µs")
				runtime.KeepAlive(find)
			})
		}
	}
}

func heapInUse() float64 {
	var m runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&m)
	return float64(m.HeapAlloc)
}

// byHash is what the table would be with a built-in map: the hash finds the first user that has it, others follow in a
// chain.
func byHash[K comparable](names []string, key func(uint64) K) func(string) bool {
	type user struct {
		entry
		next uint32
	}
	var (
		ids   roster
		seed  = maphash.MakeSeed()
		first = map[K]uint32{}
		users = make([]user, 1)
	)
	for _, name := range names {
		k := key(maphash.String(seed, name))
		users = append(users, user{entry{id: ids.enter(name)}, first[k]})
		first[k] = uint32(len(users) - 1)
	}
	return func(name string) bool {
		for i := first[key(maphash.String(seed, name))]; i != 0; i = users[i].next {
			if ids.ids.get(users[i].id) == name {
				return true
			}
		}
		return false
	}
}
