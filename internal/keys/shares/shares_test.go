package shares

import (
	"errors"
	"strings"
	"testing"

	"github.com/cloudflare/circl/secretsharing"
	"pgregory.net/rapid"
)

const few = minIterations

var holders = []string{"alice", "bob", "carol", "dave", "erin"}

func pass(holder string) (string, error) { return "of " + holder, nil }

func cut(t interface{ Fatal(...any) }, n, need int) (string, []Share) {
	secret, out, err := Cut("oem-root", holders[:n], need, few, false, pass)
	if err != nil {
		t.Fatal(err)
	}
	return secret, out
}

func open(t interface{ Fatal(...any) }, s Share) Opened {
	o, err := s.Open("of " + s.Holder)
	if err != nil {
		t.Fatal(err)
	}
	return o
}

// Any m of n have the secret, through paper and back; fewer have none.
func TestAnyEnoughOfThemRestoreAndFewerDoNot(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		n := rapid.IntRange(2, 5).Draw(t, "n")
		need := rapid.IntRange(2, n).Draw(t, "need")
		secret, all := cut(t, n, need)
		if len(secret) != 64 {
			t.Fatalf("a secret of %d digits", len(secret))
		}
		order := rapid.Permutation(all).Draw(t, "order")
		var opened []Opened
		for i, s := range order {
			text, err := s.Print()
			if err != nil {
				t.Fatal(err)
			}
			read, err := Parse([]byte(text))
			if err != nil {
				t.Fatal(err)
			}
			opened = append(opened, open(t, read))
			got, err := Join(append(opened, opened[0])) // one given twice counts once
			switch {
			case i+1 < need && !errors.Is(err, ErrTooFew):
				t.Fatalf("%d of %d: %q, %v", i+1, need, got, err)
			case i+1 >= need && (err != nil || got != secret):
				t.Fatalf("%d of %d: %q, %v", i+1, need, got, err)
			}
		}
	})
}

// What fewer than m shares hold fits every secret: for a share more, made up at will, there is a polynomial through it. The commitments
// tell a guess from the truth, and so a holder could try secrets, of which there are 2^256.
func TestTooFewSharesFitEverySecret(t *testing.T) {
	secret, all := cut(t, 3, 3)
	a, b := open(t, all[0]), open(t, all[1])
	c := open(t, all[2])
	seen := map[string]bool{secret: true}
	for i := range uint64(50) {
		c.value = curve.NewScalar().SetUint64(i + 1) // made up
		s, err := passphraseOfParts(a, b, c)
		if err != nil || seen[s] {
			t.Fatalf("%q %v: two shares left only some secrets possible", s, err)
		}
		seen[s] = true
		if _, err := Join([]Opened{a, b, c}); !errors.Is(err, ErrWrong) {
			t.Fatalf("a made-up share was taken: %v", err)
		}
	}
}

func TestAWrongShareIsNamed(t *testing.T) {
	_, all := cut(t, 3, 2)
	_, others := cut(t, 3, 2)
	if _, err := all[1].Open("of alice"); !errors.Is(err, ErrPassphrase) || !strings.Contains(err.Error(), "bob") {
		t.Errorf("another's passphrase: %v", err)
	}
	if _, err := Join([]Opened{open(t, all[0]), open(t, others[1])}); !errors.Is(err, ErrWrong) || !strings.Contains(err.Error(), "bob") {
		t.Errorf("of another cut: %v", err)
	}
	moved := all[1]
	moved.Index = 3
	if _, err := moved.Open("of bob"); !errors.Is(err, ErrPassphrase) {
		t.Errorf("under another number: %v", err)
	}
	// Its holder seals a value of his own: the commitments tell.
	forged := all[1]
	value, err := curve.NewScalar().SetUint64(7).MarshalBinary()
	if err != nil {
		t.Fatal(err)
	}
	if err := forged.seal("of bob", value); err != nil {
		t.Fatal(err)
	}
	if _, err := forged.Open("of bob"); !errors.Is(err, ErrWrong) || !strings.Contains(err.Error(), "bob") {
		t.Errorf("a forged value: %v", err)
	}
}

func TestASlipOfTheHandIsFoundInItsLine(t *testing.T) {
	_, all := cut(t, 3, 2)
	text, err := all[0].Print()
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(strings.TrimSpace(text), "\n")[2:]
	for i := range lines {
		typed := append([]string(nil), lines...)
		old, fresh := typed[i][6], byte('a')
		if old == 'a' {
			fresh = 'b'
		}
		typed[i] = typed[i][:6] + string(fresh) + typed[i][7:]
		want := typed[i][:2]
		if want[0] == '0' {
			want = want[1:]
		}
		if _, err := Parse([]byte(strings.Join(typed, "\n"))); err == nil || !strings.Contains(err.Error(), "line "+want) {
			t.Errorf("line %d: %v", i+1, err)
		}
		if _, err := Parse([]byte(strings.Join(append(typed[:i:i], typed[i+1:]...), "\n"))); err == nil {
			t.Errorf("without line %d: read", i+1)
		}
	}
	if _, err := Parse([]byte(strings.ToUpper(strings.Join(lines, "\n\n")))); err != nil {
		t.Errorf("in capitals, with empty lines: %v", err)
	}
}

func TestCutsThatAreNotMade(t *testing.T) {
	for name, c := range map[string]struct{ n, need int }{"one alone": {3, 1}, "more than there are": {2, 3}, "of one": {1, 1}} {
		if _, _, err := Cut("k", holders[:c.n], c.need, few, false, pass); err == nil {
			t.Errorf("%s: cut", name)
		}
	}
	if _, _, err := Cut("k", holders[:2], 2, few, false, func(string) (string, error) { return "", nil }); err == nil {
		t.Error("without a passphrase: cut")
	}
}

func passphraseOfParts(opened ...Opened) (string, error) {
	parts := make([]secretsharing.Share, 0, len(opened))
	for _, o := range opened {
		parts = append(parts, o.part())
	}
	s, err := secretsharing.Recover(uint(opened[0].Need-1), parts)
	if err != nil {
		return "", err
	}
	return passphraseOf(s)
}

func FuzzParse(f *testing.F) {
	_, all := cut(f, 3, 2)
	text, err := all[0].Print()
	if err != nil {
		f.Fatal(err)
	}
	f.Add([]byte(text))
	f.Add([]byte("01/01 aaaa . aaaa"))
	f.Fuzz(func(t *testing.T, b []byte) {
		if s, err := Parse(b); err == nil {
			if again, err := s.Print(); err != nil || again == "" {
				t.Fatalf("read, and not printed: %v", err)
			}
		}
	})
}

func FuzzDecode(f *testing.F) {
	_, all := cut(f, 3, 2)
	data, err := all[0].Encode()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(data)
	f.Fuzz(func(t *testing.T, b []byte) {
		s, err := Decode(b)
		if err == nil && s.Iterations > maxIterations {
			t.Fatal("asks for too much")
		}
	})
}
