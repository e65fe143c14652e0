package dev

import (
	"os"
	"path/filepath"
	"sync"
	"testing"
)

func TestTheSecretOfDevIsTheUsersOwn(t *testing.T) {
	config := t.TempDir()
	t.Setenv("XDG_CONFIG_HOME", config)
	t.Setenv("HOME", config)
	var all sync.Map
	var group sync.WaitGroup
	for range 8 {
		group.Go(func() {
			secret, err := devSecret()
			if err != nil || len(secret) < 40 {
				t.Errorf("%d bytes, %v", len(secret), err)
			}
			all.Store(secret, true)
		})
	}
	group.Wait()
	n := 0
	all.Range(func(any, any) bool { n++; return true })
	if n != 1 {
		t.Errorf("8 at once have %d secrets", n)
	}
	err := filepath.WalkDir(config, func(path string, d os.DirEntry, err error) error {
		if err != nil || path == config {
			return err
		}
		info, err := d.Info()
		if err == nil && info.Mode().Perm()&0o077 != 0 {
			t.Errorf("%s is %s", path, info.Mode())
		}
		if !d.IsDir() && d.Name() != "dev-secret" {
			t.Errorf("%s was left", path)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

func TestWhichAddressesReachBeyondThisMachine(t *testing.T) {
	t.Parallel()
	for addr, beyond := range map[string]bool{
		"127.0.0.1:8080": false, "localhost:8080": false, "[::1]:8080": false, "127.9.9.9:0": false,
		"0.0.0.0:8080": true, ":8080": true, "[::]:8080": true, "192.168.1.5:80": true, "laptop.local:80": true,
	} {
		if got := beyondThisMachine(addr); got != beyond {
			t.Errorf("%s: %t", addr, got)
		}
	}
}
