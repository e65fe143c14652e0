package simulator

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"os"
)

// NewKey makes a signing key as Apple hands them out: a .p8 file's text.
func NewKey() (p8 []byte, public *ecdsa.PublicKey, err error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, nil, fmt.Errorf("make a signing key: %w", err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, nil, fmt.Errorf("make a signing key: %w", err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), &key.PublicKey, nil
}

// keyFile is the public half of the key in a file, which is made where it is missing.
func keyFile(path string) (*ecdsa.PublicKey, error) {
	p8, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		var public *ecdsa.PublicKey
		if p8, public, err = NewKey(); err != nil {
			return nil, err
		}
		if err := os.WriteFile(path, p8, 0o600); err != nil {
			return nil, fmt.Errorf("apns simulator: keep its signing key: %w", err)
		}
		return public, nil
	}
	if err != nil {
		return nil, fmt.Errorf("apns simulator: its signing key: %w", err)
	}
	if block, _ := pem.Decode(p8); block != nil {
		if parsed, err := x509.ParsePKCS8PrivateKey(block.Bytes); err == nil {
			if key, ok := parsed.(*ecdsa.PrivateKey); ok {
				return &key.PublicKey, nil
			}
		}
	}
	return nil, fmt.Errorf("apns simulator: %s is not a signing key (.p8)", path)
}
