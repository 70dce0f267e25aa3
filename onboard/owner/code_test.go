package owner_test

import (
	"strings"
	"testing"

	"github.com/hallmark-iot/hallmark/fault"
	"github.com/hallmark-iot/hallmark/onboard/owner"
)

func TestACodeIsReadAsPeopleWriteIt(t *testing.T) {
	code := owner.NewCode()
	if len(code) != 29 || strings.Count(code, "-") != 4 || code == owner.NewCode() {
		t.Fatalf("%q", code)
	}
	for _, written := range []string{
		code, strings.ToLower(code), strings.ReplaceAll(code, "-", ""), " " + strings.ReplaceAll(code, "-", " ") + " ",
		strings.ReplaceAll(strings.ReplaceAll(code, "0", "o"), "1", "l"),
	} {
		if got, err := owner.ParseCode(written); err != nil || got != code {
			t.Errorf("%q reads as %q, %v", written, got, err)
		}
	}
}

func TestEveryTypingErrorOfOneCharacterIsFound(t *testing.T) {
	code := owner.NewCode()
	refused := func(what, written string) {
		t.Helper()
		if _, err := owner.ParseCode(written); err == nil || fault.KindOf(err) != fault.Invalid {
			t.Errorf("%s: %q is read, %v", what, written, err)
		}
	}
	for i := range code {
		if code[i] == '-' {
			continue
		}
		for _, c := range "0123456789ABCDEFGHJKMNPQRSTVWXYZ" {
			if byte(c) != code[i] {
				refused("another character", code[:i]+string(c)+code[i+1:])
			}
		}
		if i+1 < len(code) && code[i+1] != '-' && code[i] != code[i+1] {
			refused("two changed places", code[:i]+code[i+1:i+2]+code[i:i+1]+code[i+2:])
		}
		refused("one too few", code[:i]+code[i+1:])
	}
	g := strings.Split(code, "-")
	for i := range g {
		for j := range i {
			if g[i] != g[j] {
				x := append([]string(nil), g...)
				x[i], x[j] = x[j], x[i]
				refused("groups changed places", strings.Join(x, "-"))
			}
		}
	}
	for _, bad := range []string{"", "-", code + "0", "U" + code[1:], "é" + code[1:], strings.Repeat("0", 1000)} {
		refused("no code", bad)
	}
}

func FuzzParseCode(f *testing.F) {
	f.Add(owner.NewCode())
	f.Add("00000-00000")
	f.Fuzz(func(t *testing.T, s string) {
		code, err := owner.ParseCode(s)
		if err != nil {
			return
		}
		if again, err := owner.ParseCode(code); err != nil || again != code {
			t.Fatalf("%q reads as %q, and that as %q, %v", s, code, again, err)
		}
	})
}
