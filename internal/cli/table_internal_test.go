package cli

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"
	"unicode"
)

// What others wrote does not steer the terminal of who reads it, nor turn around what a second person is asked to approve.
func TestWhatOthersWroteIsInert(t *testing.T) {
	const said = "a\u009b2J\u001b[31m\u202egnihton\u202c \U000E0041\u2028\x7fü"
	var out bytes.Buffer
	if err := printJSON(&out, map[string]string{"reason": said}); err != nil {
		t.Fatal(err)
	}
	var back map[string]string
	if err := json.Unmarshal(out.Bytes(), &back); err != nil || back["reason"] != said {
		t.Errorf("%q: %v", out.Bytes(), err)
	}
	for name, text := range map[string]string{"JSON": out.String(), "an error": paragraph(said + "\nb")} {
		if strings.ContainsFunc(text, func(r rune) bool { return r != '\n' && !unicode.IsPrint(r) }) || !strings.Contains(text, "ü") || !strings.Contains(text, "\n") {
			t.Errorf("%s: %q", name, text)
		}
	}
}
