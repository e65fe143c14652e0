package embedded

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
)

// prepare decides who runs Postgres and where its state and binaries lie, and makes those folders.
func (cfg *PostgresConfig) prepare() (hostConfig, error) {
	hc := hostConfig{
		Port: cfg.Port, User: cfg.User, Password: cfg.Password, Database: cfg.Database,
		Settings: cfg.Settings, UID: -1, GID: -1,
	}
	if os.Geteuid() == 0 {
		hc.UID, hc.GID = postgresUser(cfg.DataDir)
	}
	var err error
	if hc.StateDir, err = cfg.stateDir(hc.UID, hc.GID); err != nil {
		return hc, err
	}
	hc.Ephemeral = cfg.DataDir == ""
	hc.NoSync = cfg.NoSync || hc.Ephemeral
	if hc.CacheDir, err = cfg.cacheDir(hc.UID, hc.GID); err != nil {
		return hc, err
	}
	return hc, nil
}

// postgresUser is who root becomes: the owner of data that is already there (a checkout mounted into a
// container, a run before without root), else postgres, else nobody.
func postgresUser(dataDir string) (uid, gid int) {
	if fi, err := os.Stat(dataDir); dataDir != "" && err == nil {
		if uid, gid := owner(fi); uid != 0 {
			return uid, gid
		}
	}
	for _, name := range []string{"postgres", "nobody"} {
		u, err := user.Lookup(name)
		if err != nil {
			continue
		}
		uid, err1 := strconv.Atoi(u.Uid)
		gid, err2 := strconv.Atoi(u.Gid)
		if err1 == nil && err2 == nil && uid > 0 {
			return uid, gid
		}
	}
	return 65534, 65534
}

func (cfg *PostgresConfig) stateDir(uid, gid int) (string, error) {
	if cfg.DataDir == "" {
		dir, err := os.MkdirTemp(reachableTemp(uid, gid), "whisper-postgres-")
		if err != nil {
			return "", fmt.Errorf("make a temporary folder: %w", err)
		}
		return dir, own(dir, uid, gid)
	}
	dir, err := filepath.Abs(cfg.DataDir)
	if err != nil {
		return "", err
	}
	parent := filepath.Dir(dir)
	barrier := unreachable(parent, uid, gid)
	if barrier == "" {
		if err := os.MkdirAll(parent, 0o755); err != nil {
			return "", fmt.Errorf("make data folder: %w", err)
		}
		barrier = unreachable(parent, uid, gid) // again: a strict umask closes what was just made
	}
	if barrier != "" {
		// The name is stable, so that the next start of this project finds its data.
		sum := sha256.Sum256([]byte(dir))
		moved := filepath.Join("/var/tmp", "whisper-postgres-"+hex.EncodeToString(sum[:6]))
		cfg.Logger.Info("postgres can't run as root, and its user can't enter the chosen folder; its state is elsewhere",
			"user_id", uid, "chosen", dir, "closed", barrier, "state_dir", moved)
		dir = moved
	}
	if err := os.Mkdir(dir, 0o700); err != nil && !errors.Is(err, os.ErrExist) {
		return "", fmt.Errorf("make data folder: %w", err)
	}
	return dir, own(dir, uid, gid)
}

func (cfg *PostgresConfig) cacheDir(uid, gid int) (string, error) {
	dir := cfg.CacheDir
	if dir == "" {
		if uid >= 0 {
			dir = filepath.Join("/var/cache/whisper-postgres", strconv.Itoa(uid))
		} else {
			base, err := os.UserCacheDir()
			if err != nil {
				base = os.TempDir()
			}
			dir = filepath.Join(base, "whisper", "postgres")
		}
	}
	dir, err := filepath.Abs(dir)
	if err != nil {
		return "", err
	}
	if err := os.MkdirAll(filepath.Dir(dir), 0o755); err != nil {
		return "", fmt.Errorf("make cache folder: %w", err)
	}
	if barrier := unreachable(filepath.Dir(dir), uid, gid); barrier != "" {
		return "", fmt.Errorf("cache folder %s can't be reached by user %d, who runs Postgres for root: %s is closed to it; choose another",
			dir, uid, barrier)
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", fmt.Errorf("make cache folder: %w", err)
	}
	return dir, own(dir, uid, gid)
}

// own gives a folder to the user, and refuses one that somebody else put there: /var/tmp is
// everybody's.
func own(dir string, uid, gid int) error {
	if uid < 0 {
		return nil
	}
	fi, err := os.Lstat(dir)
	if err != nil {
		return err
	}
	switch has, _ := owner(fi); {
	case !fi.IsDir():
		return fmt.Errorf("%s is not a folder", dir)
	case has == uid:
		return nil
	case has != 0:
		return fmt.Errorf("folder %s belongs to user %d, not to user %d, who runs Postgres for root: remove it, or choose another", dir, has, uid)
	}
	if err := os.Lchown(dir, uid, gid); err != nil {
		return fmt.Errorf("give folder %s to user %d, who runs Postgres for root: %w", dir, uid, err)
	}
	return nil
}

// unreachable is the first folder on the way to dir that the user may not enter, or "". Groups beside
// the user's own are not looked at: the host has none.
func unreachable(dir string, uid, gid int) string {
	if uid < 0 {
		return ""
	}
	closed := ""
	for d := dir; ; d = filepath.Dir(d) {
		fi, err := os.Stat(d)
		switch {
		case errors.Is(err, os.ErrNotExist): // made later, by this process, for that user
		case err != nil:
			closed = d
		default:
			bit := os.FileMode(0o001)
			if u, g := owner(fi); u == uid {
				bit = 0o100
			} else if g == gid {
				bit = 0o010
			}
			if fi.Mode()&bit == 0 {
				closed = d
			}
		}
		if d == filepath.Dir(d) {
			return closed
		}
	}
}

// reachableTemp is where temporary folders go; "" is os.TempDir.
func reachableTemp(uid, gid int) string {
	if unreachable(os.TempDir(), uid, gid) != "" {
		return "/var/tmp"
	}
	return ""
}
