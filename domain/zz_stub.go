package domain

import (
	"time"

	"github.com/klivvr/whisper/domain/whisperv1"
)

type Template struct{}

func (*Template) Render([]byte, *whisperv1.Profile) (*whisperv1.Content, string, error) {
	return nil, "", nil
}

type ProfilePatch struct{}

func ParseProfilePatch([]byte) (ProfilePatch, error) { return ProfilePatch{}, nil }
func ApplyProfilePatch(old *whisperv1.Profile, _ ProfilePatch, _ time.Time, o int64) *whisperv1.Profile {
	return &whisperv1.Profile{ChangesOffset: o}
}

func ParseTemplate([]byte) (*Template, error) { return nil, nil }
