package dev

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
)

// devSecret is the secret by which `whisper dev` checks tokens. It is random, made when it is first needed, and kept where
// only this user of the machine can read it. It belongs to the user and not to a state folder, so that `whisper token` and
// `whisper listen` need no settings for any `whisper dev`, also an ephemeral one.
func devSecret() (string, error) {
	config, err := os.UserConfigDir()
	if err != nil {
		return "", fmt.Errorf("auth-secret: there is nowhere to keep one (%w): give it", err)
	}
	folder := filepath.Join(config, "whisper")
	path := filepath.Join(folder, "dev-secret")
	secret, err := readSecret(path)
	if !errors.Is(err, fs.ErrNotExist) {
		return secret, err
	}
	if err := os.MkdirAll(folder, 0o700); err != nil {
		return "", fmt.Errorf("auth-secret: %w; give one", err)
	}
	fresh, err := os.CreateTemp(folder, "dev-secret-*") // 0600
	if err != nil {
		return "", fmt.Errorf("auth-secret: %w; give one", err)
	}
	defer func() { _ = os.Remove(fresh.Name()) }()
	_, err = fmt.Fprintln(fresh, rand.Text()+rand.Text())
	if err = errors.Join(err, fresh.Close()); err != nil {
		return "", fmt.Errorf("auth-secret: %w; give one", err)
	}
	// Whole or not at all, and of two that do this at once both go on with the same.
	if err := os.Link(fresh.Name(), path); err != nil && !errors.Is(err, fs.ErrExist) {
		return "", fmt.Errorf("auth-secret: %w; give one", err)
	}
	return readSecret(path)
}

func readSecret(path string) (string, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return "", fmt.Errorf("auth-secret: %w", err)
	}
	return strings.TrimSpace(string(text)), nil
}

// secretOr is the secret that was given, or that of this user's `whisper dev`.
func secretOr(given string) (string, error) {
	if given != "" {
		return given, nil
	}
	return devSecret()
}

// beyondThisMachine says that others than this machine can reach an address.
func beyondThisMachine(addr string) bool {
	host, _, err := net.SplitHostPort(addr)
	if err != nil || strings.EqualFold(host, "localhost") {
		return false
	}
	ip, err := netip.ParseAddr(host)
	return err != nil || !ip.IsLoopback()
}
