package gateway

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// contract is the part of docs/contract.md that is about sockets.
func contract(t *testing.T) string {
	t.Helper()
	page, err := os.ReadFile("../docs/contract.md")
	if err != nil {
		t.Fatal(err)
	}
	_, part, _ := strings.Cut(string(page), "\n## Clients: the socket\n")
	part, _, found := strings.Cut(part, "\n## ")
	if !found {
		t.Fatal("docs/contract.md has no part about the socket")
	}
	return part
}

func TestTheContractListsTheCloseCodesThatTheNodeChooses(t *testing.T) {
	t.Parallel()
	var listed []int
	_, table, found := strings.Cut(contract(t), "| close code | why |\n|---|---|\n")
	for line := range strings.Lines(table) {
		if !strings.HasPrefix(line, "|") {
			break
		}
		for _, text := range regexp.MustCompile(`\d{4}`).FindAllString(strings.Split(line, "|")[1], -1) {
			code, err := strconv.Atoi(text)
			if err != nil {
				t.Fatal(err)
			}
			listed = append(listed, code)
		}
	}
	var chosen []int
	for code, origin := range closeCodes {
		if origin != byPeer {
			chosen = append(chosen, code)
		}
	}
	slices.Sort(listed)
	slices.Sort(chosen)
	if !found || !slices.Equal(listed, chosen) {
		t.Errorf("docs/contract.md lists %v, the code closes with %v", listed, chosen)
	}
}

func TestTheContractListsTheCodesOfErrorFrames(t *testing.T) {
	t.Parallel()
	row := regexp.MustCompile(`(?m)^\| server \| .*"type":"error".*$`).FindString(contract(t))
	open, closed, found := strings.Cut(row[strings.Index(row, ": ")+1:], "; and ")
	listed := map[string]bool{}
	for ends, part := range map[bool]string{false: open, true: closed} {
		for _, m := range regexp.MustCompile("`([a-z0-9_]+)`").FindAllStringSubmatch(part, -1) {
			listed[m[1]] = ends
		}
	}
	if !found || !maps.Equal(listed, errorCodes) {
		t.Errorf("docs/contract.md lists %v, the code has %v", listed, errorCodes)
	}
}

// Every constant close... is in closeCodes, every constant code... in errorCodes; and nothing but protocol.go speaks of
// a code that blames the client, so that whatever closes a session for that is a protocolError.
func TestProtocolErrorsAreMadeInOnePlace(t *testing.T) {
	t.Parallel()
	files, err := filepath.Glob("*.go")
	if err != nil {
		t.Fatal(err)
	}
	blaming := map[string]bool{}
	uses := map[string][]string{}
	for _, file := range files {
		if strings.HasSuffix(file, "_test.go") {
			continue
		}
		parsed, err := parser.ParseFile(token.NewFileSet(), file, nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		ast.Inspect(parsed, func(n ast.Node) bool {
			if id, ok := n.(*ast.Ident); ok && file != "protocol.go" {
				uses[id.Name] = append(uses[id.Name], file)
			}
			spec, ok := n.(*ast.ValueSpec)
			if !ok || file != "protocol.go" || len(spec.Values) != 1 {
				return true
			}
			literal, ok := spec.Values[0].(*ast.BasicLit)
			if !ok {
				return true
			}
			name := spec.Names[0].Name
			if text, err := strconv.Unquote(literal.Value); err == nil {
				if _, listed := errorCodes[text]; !listed {
					t.Errorf("errorCodes lacks %s", name)
				}
				return true
			}
			code, err := strconv.Atoi(literal.Value)
			if err != nil {
				t.Fatal(err)
			}
			origin, listed := closeCodes[code]
			if !listed {
				t.Errorf("closeCodes lacks %s", name)
			}
			blaming[name] = origin == byProtocol || origin == byToken
			return true
		})
	}
	if len(blaming) != len(closeCodes) {
		t.Errorf("%d constants for %d codes", len(blaming), len(closeCodes))
	}
	for name, does := range blaming {
		if does && len(uses[name]) > 0 {
			t.Errorf("%s is used in %v: close with a protocolError", name, uses[name])
		}
	}
}

// What each protocolError leads to: frames in the order that the client gets them, whether it is still read, and what counts.
func TestWhatFollowsFromAProtocolError(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		err    *protocolError
		frame  string
		code   int
		reason string
		deaf   bool
		bad    uint64
	}{
		"a frame that can't be used": {err: badFrame(codeBadIDs, "no %s", "ids"), frame: `"code":"bad_ids","message":"no ids"`, bad: 1},
		"a frame that ends it":       {err: badFrame(codeTooBig, "long"), frame: `"code":"too_big","message":"long"`, code: 4003, reason: "bad frame: long", deaf: true, bad: 1},
		"a breach":                   {err: breach("opcode %d", 7), code: 1002, reason: "opcode 7", deaf: true, bad: 1},
		"not UTF-8":                  {err: notUTF8("a text frame"), code: 1007, reason: "a text frame is not UTF-8", deaf: true, bad: 1},
		"an expired token":           {err: refused(errTokenExpired), code: 4002, reason: errTokenExpired.Error()},
		"a revoked token":            {err: refused(errRevoked), code: 4001, reason: errRevoked.Error()},
		"a bad token":                {err: refused(fmt.Errorf("%w: early", errBadToken)), code: 4001, reason: errBadToken.Error() + ": early"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			n, s, l := onFakeLink(t)
			l.wrote = nil
			if open := s.fail(c.err); open != (c.code == 0) {
				t.Errorf("open %t", open)
			}
			n.pumpAll()
			var want []byte
			if c.frame != "" {
				want = encodeFrame(opText, []byte(`{"type":"error",`+c.frame+`}`))
			}
			if c.code != 0 {
				want = append(want, closeFrame(c.code, c.reason)...)
			}
			if string(l.wrote) != string(want) {
				t.Errorf("sent %q, want %q", l.wrote, want)
			}
			if s.deaf() != c.deaf || n.metrics.badFrames.Get() != c.bad {
				t.Errorf("deaf %t, %d bad frames", s.deaf(), n.metrics.badFrames.Get())
			}
			if c.code != 0 && n.metrics.closes[c.code].Get() != 1 {
				t.Errorf("%d closes with %d", n.metrics.closes[c.code].Get(), c.code)
			}
		})
	}
}
