package domain

import (
	"github.com/klivvr/whisper/domain/whisperv1"
)

type Template struct{}

func (*Template) Render([]byte, *whisperv1.Profile) (*whisperv1.Content, string, error) {
	return nil, "", nil
}

func ParseTemplate([]byte) (*Template, error) { return nil, nil }
