package archtest

import (
	"bytes"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// source is one Go file of the module.
type source struct {
	path  string // from the repository's root
	file  *ast.File
	fset  *token.FileSet
	lines int
}

func (s source) dir() string { return filepath.Dir(s.path) }
func (s source) test() bool  { return strings.HasSuffix(s.path, "_test.go") }

func parse(path string, text []byte) (source, error) {
	fset := token.NewFileSet()
	f, err := parser.ParseFile(fset, path, text, parser.ParseComments)
	return source{path: path, file: f, fset: fset, lines: bytes.Count(text, []byte("\n"))}, err
}

// sources are the Go files of the module that a person wrote.
func sources(t *testing.T) []source {
	t.Helper()
	root := filepath.Join("..", "..")
	var all []source
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(root, path)
		if err != nil {
			return err
		}
		if d.IsDir() {
			hidden := strings.HasPrefix(d.Name(), ".") || strings.HasPrefix(d.Name(), "_")
			if rel != "." && (hidden || rel == "tools" || rel == "bin" || d.Name() == "testdata") {
				return filepath.SkipDir
			}
			return nil
		}
		if !strings.HasSuffix(path, ".go") {
			return nil
		}
		text, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		s, err := parse(filepath.ToSlash(rel), text)
		if err != nil {
			return err
		}
		if !ast.IsGenerated(s.file) {
			all = append(all, s)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if len(all) < 50 {
		t.Fatalf("only %d source files found: the rules would hold for nothing", len(all))
	}
	return all
}

const (
	maxFile     = 800
	maxFunction = 80
)

// longer lists what may be longer all the same. It is empty and means to stay so.
var longer = []string{}

// shape names what is wrong with one file's form.
func shape(s source) []string {
	var wrong []string
	if s.lines > maxFile && !slices.Contains(longer, s.path) {
		wrong = append(wrong, fmt.Sprintf("%s has %d lines, at most %d", s.path, s.lines, maxFile))
	}
	for _, d := range s.file.Decls {
		fn, ok := d.(*ast.FuncDecl)
		if !ok {
			continue
		}
		if fn.Name.Name == "init" && fn.Recv == nil {
			wrong = append(wrong, s.path+" has an init function: say it where it is used")
		}
		long := s.fset.Position(fn.End()).Line - s.fset.Position(fn.Pos()).Line + 1
		if long > maxFunction && !s.test() && !slices.Contains(longer, s.path+" "+fn.Name.Name) {
			wrong = append(wrong, fmt.Sprintf("%s: %s has %d lines, at most %d", s.path, fn.Name.Name, long, maxFunction))
		}
	}
	return wrong
}

func TestFilesAndFunctionsFitASitting(t *testing.T) {
	for _, s := range sources(t) {
		for _, w := range shape(s) {
			t.Error(w)
		}
	}
}

var (
	vague  = []string{"common", "util", "utils", "types", "models", "helpers", "helper", "misc", "shared", "lib"}
	staged = regexp.MustCompile(`(?i)\b(stages? \d|(under|over) all( stages)?)\b`)
)

// TestEveryPackageSaysWhatItIs wants a comment that gives the package's place in a device's life. Commands say it in words.
func TestEveryPackageSaysWhatItIs(t *testing.T) {
	docs, names := map[string]string{}, map[string]string{}
	for _, s := range sources(t) {
		if s.test() || s.file.Name.Name == "hallmark" && s.dir() == "." {
			continue
		}
		docs[s.dir()] += s.file.Doc.Text()
		names[s.dir()] = s.file.Name.Name
	}
	for dir, name := range names {
		if slices.Contains(vague, name) || slices.Contains(vague, filepath.Base(dir)) {
			t.Errorf("%s: a package named %s has no one idea", dir, name)
		}
		switch doc := docs[dir]; {
		case doc == "":
			t.Errorf("%s has no package comment", dir)
		case name != "main" && !staged.MatchString(doc):
			t.Errorf("%s: the package comment does not say its stage (\"Stage 2, birth: …\", \"Under all stages: …\")", dir)
		}
	}
}

var decoder = regexp.MustCompile(`^(Decode|Parse|Read)([A-Z0-9]|$)`)

// unfuzzed are the exported functions that read bytes from outside, and that no fuzz target beside them calls.
func unfuzzed(all []source) []string {
	decoders, fuzzed := map[string][]string{}, map[string][]string{}
	for _, s := range all {
		for _, d := range s.file.Decls {
			fn, ok := d.(*ast.FuncDecl)
			if !ok || fn.Recv != nil {
				continue
			}
			switch name := fn.Name.Name; {
			case s.test() && strings.HasPrefix(name, "Fuzz"):
				ast.Inspect(fn, func(n ast.Node) bool {
					if id, ok := n.(*ast.Ident); ok {
						fuzzed[s.dir()] = append(fuzzed[s.dir()], id.Name)
					}
					return true
				})
			case !s.test() && decoder.MatchString(name) && takesBytes(fn):
				decoders[s.dir()] = append(decoders[s.dir()], name)
			}
		}
	}
	var missing []string
	for dir, names := range decoders {
		for _, name := range names {
			if !slices.Contains(fuzzed[dir], name) {
				missing = append(missing, dir+"."+name)
			}
		}
	}
	slices.Sort(missing)
	return missing
}

// takesBytes says whether a parameter is a []byte or an io.Reader.
func takesBytes(fn *ast.FuncDecl) bool {
	for _, p := range fn.Type.Params.List {
		switch a := p.Type.(type) {
		case *ast.ArrayType:
			if id, ok := a.Elt.(*ast.Ident); ok && a.Len == nil && id.Name == "byte" {
				return true
			}
		case *ast.SelectorExpr:
			if id, ok := a.X.(*ast.Ident); ok && id.Name == "io" && a.Sel.Name == "Reader" {
				return true
			}
		}
	}
	return false
}

func TestEveryDecoderIsFuzzed(t *testing.T) {
	for _, m := range unfuzzed(sources(t)) {
		t.Errorf("%s has no fuzz target", m)
	}
}

// Cryptography that is not in the standard library, and so not in its validated module, is only what is named here.
var (
	cryptic       = regexp.MustCompile(`(?i)crypt|pkcs|cose|jose|jws|jwt|blake|25519|secp256|argon|chacha|poly1305|nacl|tink|circl|pgp|\bage\b|hpke|kem\b|dsa\b|x509|tpm|/tls|/rand\b|otp|noise`)
	cryptoAllowed = map[string]string{
		"golang.org/x/crypto/cryptobyte":                      "ASN.1, no cryptography",
		"golang.org/x/crypto/cryptobyte/asn1":                 "ASN.1, no cryptography",
		"golang.org/x/crypto/ocsp":                            "OCSP encoding; signs through crypto.Signer",
		"github.com/veraison/go-cose":                         "COSE structure; signs through crypto.Signer",
		"github.com/go-jose/go-jose/v4":                       "JWS encoding; ES256 and ES384 are verified by crypto/ecdsa",
		"github.com/smallstep/pkcs7":                          "certs-only PKCS#7 of EST; CMS over what SWUpdate installs, offline, by crypto.Signer",
		"github.com/cloudflare/circl/group":                   "shares of a passphrase; what the passphrase seals is sealed by the validated module",
		"github.com/cloudflare/circl/secretsharing":           "the same",
		"github.com/tink-crypto/tink-go/v2/kwp/subtle":        "RFC 5649 as CKM_RSA_AES_KEY_WRAP has it, over the validated module's AES",
		"github.com/miekg/pkcs11":                             "the HSM does the cryptography",
		"github.com/ThalesGroup/crypto11":                     "the token does the cryptography",
		"github.com/google/go-tpm/tpm2":                       "the TPM does the cryptography; commands without encrypted sessions",
		"github.com/google/go-tpm/tpm2/transport":             "the same",
		"github.com/google/go-tpm/tpm2/transport/linuxtpm":    "the same",
		"github.com/google/go-tpm/tpm2/transport/linuxudstpm": "the same",
		"filippo.io/mldsa":                                    "ML-DSA as in the validated module from Go 1.27 on; suite HM-MLDSA44-1, and cosignatures beside Ed25519",
		"filippo.io/mldsa/x509":                               "encoding of such keys (RFC 9881); as in the standard library from Go 1.27 on",
	}
	// What the standard library keeps for old formats, and the one place that has to speak such a format.
	weak        = []string{"crypto/md5", "crypto/sha1", "crypto/rc4", "crypto/des", "crypto/dsa"}
	weakAllowed = map[string]string{
		"wire/suit crypto/sha1":       "UUIDs of version 5, as the draft demands; names, on whose hash nothing rests",
		"onboard/foreign crypto/sha1": "thumbprints in lists of other registries; the device is held to its first key by SHA-256",

		"internal/ddi crypto/sha1": "hawkBit's clients compare it beside SHA-256; nothing here rests on it",
		"internal/ddi crypto/md5":  "the same",

		"station/module/soft crypto/sha1": "the other side of the same",

		"factory crypto/sha1": "RSA-OAEP towards a station's HSM that has nothing newer; collision resistance is not needed there",
	}
)

// badCrypto names what is wrong with a package's use of imp; "" when nothing is.
func badCrypto(dir, imp string) string {
	first, _, _ := strings.Cut(imp, "/")
	switch {
	case imp == "math/rand":
		return "use math/rand/v2, or crypto/rand for anything secret"
	case slices.Contains(weak, imp) && weakAllowed[dir+" "+imp] == "":
		return "not for new formats: give the reason in weakAllowed"
	case strings.HasPrefix(imp, module):
		return ""
	case strings.Contains(first, ".") && cryptic.MatchString(imp) && cryptoAllowed[imp] == "":
		return "outside the validated module: give the reason in cryptoAllowed"
	}
	return ""
}

func TestCryptographyIsTheValidatedOne(t *testing.T) {
	for _, s := range sources(t) {
		if s.test() || s.path == "deps.go" {
			continue
		}
		for _, i := range s.file.Imports {
			if v := badCrypto(s.dir(), strings.Trim(i.Path.Value, `"`)); v != "" {
				t.Errorf("%s imports %s: %s", s.path, i.Path.Value, v)
			}
		}
	}
}

func TestTheSourceRulesCanFail(t *testing.T) {
	read := func(path, text string) source {
		s, err := parse(path, []byte(text))
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	bad := read("x/x.go", "package x\nfunc init() {}\nfunc long() {\n"+strings.Repeat("\n", maxFunction)+"}\n"+strings.Repeat("\n", maxFile))
	if got := shape(bad); len(got) != 3 {
		t.Errorf("a long file with a long function and an init: %v", got)
	}
	code := read("x/x.go", "package x\nimport \"io\"\nfunc DecodeA(b []byte) {}\nfunc ParseB(r io.Reader) {}\nfunc Decoder(b []byte) {}\nfunc ReadC(s string) {}\n")
	if got := unfuzzed([]source{code}); !slices.Equal(got, []string{"x.DecodeA", "x.ParseB"}) {
		t.Errorf("without fuzz targets: %v", got)
	}
	fuzz := read("x/x_test.go", "package x_test\nfunc FuzzAll(f *testing.F) { x.DecodeA(nil); x.ParseB(nil) }\n")
	if got := unfuzzed([]source{code, fuzz}); len(got) != 0 {
		t.Errorf("with fuzz targets: %v", got)
	}
	for _, c := range []struct {
		dir, imp string
		bad      bool
	}{
		{"x", "crypto/sha256", false},
		{"x", "crypto/sha1", true},
		{"factory", "crypto/sha1", false},
		{"x", "math/rand", true},
		{"x", "math/rand/v2", false},
		{"x", "golang.org/x/crypto/chacha20poly1305", true},
		{"x", "golang.org/x/crypto/cryptobyte", false},
		{"x", "filippo.io/age", true},
		{"x", "github.com/cloudflare/circl/kem", true},
		{"x", "github.com/spf13/cobra", false},
	} {
		if got := badCrypto(c.dir, c.imp); (got != "") != c.bad {
			t.Errorf("%s importing %s: %q, want a violation: %v", c.dir, c.imp, got, c.bad)
		}
	}
	for doc, ok := range map[string]bool{"Package x.\n\nStage 2, birth: y": true, "Under all stages: z": true, "Package x does y.": false} {
		if staged.MatchString(doc) != ok {
			t.Errorf("%q says its stage: want %v", doc, ok)
		}
	}
}
