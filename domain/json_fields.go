package domain

import (
	"slices"
	"strconv"
	"strings"
	"time"
)

// Readers of single fields that records of upstream have in common; each complains by itself.

// truth reads true or false.
func (p *problems) truth(path, raw string) bool {
	if raw != "true" && raw != "false" {
		p.add(WordWrongType, "%s must be true or false, not %s", path, jsonKind(raw))
	}
	return raw == "true"
}

// oneOf reads a word of a closed set: its index; 0 after a complaint.
func (p *problems) oneOf(path, raw string, words []string) int {
	before := p.count()
	s := p.text(path, raw)
	if p.count() > before {
		return 0
	}
	at := slices.Index(words, s)
	if at < 0 {
		p.add(WordCategory, "%s: unknown %s; known are %s", path, cited(s), strings.Join(words, ", "))
		return 0
	}
	return at
}

// whole reads a number without a fraction.
func (p *problems) whole(path, raw string, least, most int) int {
	n, err := strconv.Atoi(raw)
	switch {
	case jsonKind(raw) != "a number":
		p.add(WordWrongType, "%s must be a number, not %s", path, jsonKind(raw))
	case err != nil:
		p.add(WordCategory, "%s is %s: it must be a whole number from %d to %d", path, cut(raw), least, most)
	case n < least || n > most:
		p.add(WordCategory, "%s is %d: it must be from %d to %d", path, n, least, most)
	default:
		return n
	}
	return 0
}

// duration reads a positive duration such as "90s".
func (p *problems) duration(path, raw string, most time.Duration) time.Duration {
	before := p.count()
	s := p.text(path, raw)
	if p.count() > before {
		return 0
	}
	d, err := time.ParseDuration(s)
	switch {
	case err != nil:
		p.add(WordTime, `%s %s is not a duration such as "90s" or "1h"`, path, cited(s))
	case d <= 0:
		p.add(WordTime, "%s is %s: it must be positive", path, s)
	case d > most:
		p.add(WordTime, "%s is %s, at most %s is allowed", path, s, most)
	default:
		return d
	}
	return 0
}

// channels reads a list of channels that this version can send over.
func (p *problems) channels(path, raw string) []string {
	if raw[0] != '[' {
		p.add(WordWrongType, "%s must be a list, not %s", path, jsonKind(raw))
		return nil
	}
	var found []string
	list := jsonCursor{s: raw}
	for item, ok := list.item(); ok; item, ok = list.item() {
		before := p.count()
		channel := p.text(path, item)
		switch {
		case p.count() > before:
			continue
		case slices.Contains(found, channel):
			p.add(WordChannel, "%s repeats %s", path, cited(channel))
			continue
		case !slices.Contains(channelsThatWork, channel) && slices.Contains(channelNames, channel):
			p.add(WordUnavailable, "%s: %s is not available in this version; %s are", path, channel, strings.Join(channelsThatWork, ", "))
		case !slices.Contains(channelNames, channel):
			p.add(WordChannel, "%s: unknown channel %s; known are %s", path, cited(channel), strings.Join(channelNames, ", "))
		}
		if found = append(found, channel); len(found) > len(channelNames) {
			break
		}
	}
	if len(found) == 0 && !p.any() {
		p.add(WordChannel, "%s is empty: leave it out for %s", path, strings.Join(defaultChannels, ", "))
	}
	return found
}
