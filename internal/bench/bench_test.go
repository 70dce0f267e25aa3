package main

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"fmt"
	"math/big"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/mod/sumdb/tlog"
)

const printed = `goos: linux
BenchmarkAppend-2        	   50000	     24000 ns/op	     41666 facts/s	     512 B/op
BenchmarkAppend-2        	   50000	     20000 ns/op	     50000 facts/s	     512 B/op
BenchmarkAppendMore-2    	   50000	     1 ns/op	     9 facts/s
PASS
`

func TestReadsWhatGoTestPrints(t *testing.T) {
	if got := metric(printed, "Append", "facts/s"); !slices.Equal(got, []float64{41666, 50000}) {
		t.Errorf("metric: %v", got)
	}
	if got := metric(printed, "Proof", "ns/op"); len(got) != 0 {
		t.Errorf("a benchmark that is not there: %v", got)
	}
	if got := median([]float64{9, 1, 5}); got != 5 {
		t.Errorf("median: %v", got)
	}
	if got := peak("Name:\tx\nVmHWM:\t   20000 kB\n"); got != 20.48 {
		t.Errorf("peak: %v MB", got)
	}
}

func TestUnmeasuredIsNeverMet(t *testing.T) {
	m := meter{count: 1, benchtime: "1x"}
	l := m.take(context.Background(), measure{name: "x", unit: "MB", ours: fileSize{filepath.Join(t.TempDir(), "none")}, goal: goal{bound: 20}})
	if !strings.HasPrefix(l.verdict, "not measured: ") || l.ours != "-" {
		t.Errorf("%+v", l)
	}
	small := filepath.Join(t.TempDir(), "small")
	if err := os.WriteFile(small, make([]byte, 2e6), 0o600); err != nil {
		t.Fatal(err)
	}
	for bound, want := range map[float64]string{3: "met", 1: "NOT met"} {
		if l := m.take(context.Background(), measure{unit: "MB", ours: fileSize{small}, goal: goal{bound: bound}}); l.verdict != want {
			t.Errorf("2 MB against %v: %+v", bound, l)
		}
	}
	if l := m.take(context.Background(), measure{unit: "MB", ours: fileSize{small}, reference: fileSize{small}, goal: goal{onRatio: true, atLeast: true, bound: 0.3}}); l.ratio != "1.00" || l.verdict != "met" {
		t.Errorf("ratio: %+v", l)
	}
}

func TestEachReportLeavesTheOtherAlone(t *testing.T) {
	const own, other = "# Results\n\n| a |\n\nwhy\n", beside + "\n| b |\n\nwhy\n"
	for name, c := range map[string]struct {
		report, part string
		others       bool
		want         string
	}{
		"the first of all":        {"", own, false, own},
		"the first of the others": {own, other, true, own + "\n" + other},
		"others alone":            {"", other, true, other},
		"own again":               {own + "\n" + other, "# Results\n\n| new |\n", false, "# Results\n\n| new |\n\n" + other},
		"others again":            {own + "\n" + other, beside + "\n| new |\n", true, own + "\n" + beside + "\n| new |\n"},
	} {
		if got := replaced(c.report, c.part, c.others); got != c.want {
			t.Errorf("%s:\n%s\nwant:\n%s", name, got, c.want)
		}
	}
}

// The list names benchmarks by text: each that is named must be there, or be listed here as still to come.
func TestTheBenchmarksNamedAreThere(t *testing.T) {
	awaited := []string{}
	for _, one := range slices.Concat(measures, peers) {
		for _, p := range []probe{one.ours, one.reference} {
			b, ok := p.(benchmark)
			if !ok {
				continue
			}
			files, err := filepath.Glob(filepath.Join("..", "..", b.in, b.pkg, "*_test.go"))
			if err != nil {
				t.Fatal(err)
			}
			found := false
			top, _, _ := strings.Cut(b.name, "/")
			for _, f := range files {
				text, err := os.ReadFile(f)
				if err != nil {
					t.Fatal(err)
				}
				found = found || regexp.MustCompile(`(?m)^func Benchmark`+top+`\(`).Match(text)
			}
			if found == slices.Contains(awaited, b.String()) {
				t.Errorf("%s: %s is there: %v; mend the name or the list of the awaited", one.name, b, found)
			}
		}
	}
}

// BenchmarkReferenceIssue is a certificate from a CSR and nothing else: parse, verify, sign, on every core.
func BenchmarkReferenceIssue(b *testing.B) {
	ca, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		b.Fatal(err)
	}
	issuer := &x509.Certificate{Subject: pkix.Name{CommonName: "CA"}, SerialNumber: big.NewInt(1), IsCA: true, BasicConstraintsValid: true}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		b.Fatal(err)
	}
	der, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{Subject: pkix.Name{SerialNumber: "0123456789abcdef"}}, key)
	if err != nil {
		b.Fatal(err)
	}
	now := time.Now()
	b.ResetTimer()
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			csr, err := x509.ParseCertificateRequest(der)
			if err == nil {
				err = csr.CheckSignature()
			}
			if err == nil {
				_, err = x509.CreateCertificate(rand.Reader, &x509.Certificate{
					Subject: csr.Subject, SerialNumber: big.NewInt(2), NotBefore: now, NotAfter: now.Add(time.Hour),
					KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
				}, issuer, csr.PublicKey, ca)
			}
			if err != nil {
				b.Error(err)
			}
		}
	})
}

// BenchmarkReferenceProof is an inclusion proof in a tree of 20,000 whose hashes are all in memory.
func BenchmarkReferenceProof(b *testing.B) {
	const size = 20_000
	var hashes []tlog.Hash
	reader := tlog.HashReaderFunc(func(at []int64) ([]tlog.Hash, error) {
		out := make([]tlog.Hash, len(at))
		for i, n := range at {
			out[i] = hashes[n]
		}
		return out, nil
	})
	for i := range int64(size) {
		more, err := tlog.StoredHashes(i, fmt.Appendf(nil, "entry %d", i), reader)
		if err != nil {
			b.Fatal(err)
		}
		hashes = append(hashes, more...)
	}
	i := int64(0)
	for b.Loop() {
		if _, err := tlog.ProveRecord(size, i%size, reader); err != nil {
			b.Fatal(err)
		}
		i += 7919
	}
}
