// Command certlint lints certificates (DER files) with zlint by RFC 5280 and the community's lints: for tests. What the CA/Browser Forum asks
// of certificates for web sites is left out: none of ours is one. Its module is its own, so that the product depends on nothing of it.
//
//	certlint FILE…
package main

import (
	"fmt"
	"os"
	"slices"

	"github.com/zmap/zcrypto/x509"
	"github.com/zmap/zlint/v3"
	"github.com/zmap/zlint/v3/lint"
)

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "certlint:", err)
		os.Exit(1)
	}
}

func run(files []string) error {
	registry, err := lint.GlobalRegistry().Filter(lint.FilterOptions{IncludeSources: lint.SourceList{lint.RFC5280, lint.RFC5480, lint.RFC5891, lint.RFC8813, lint.Community}})
	if err != nil {
		return err
	}
	bad := 0
	for _, path := range files {
		der, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		c, err := x509.ParseCertificate(der)
		if err != nil {
			return fmt.Errorf("%s: %w", path, err)
		}
		results := zlint.LintCertificateEx(c, registry).Results
		names := make([]string, 0, len(results))
		for name := range results {
			names = append(names, name)
		}
		slices.Sort(names)
		for _, name := range names {
			if r := results[name]; r.Status >= lint.Error {
				bad++
				fmt.Printf("%s: %s: %s %s\n", path, name, r.Status, r.Details)
			} else if r.Status == lint.Warn {
				fmt.Printf("%s: %s: %s %s\n", path, name, r.Status, r.Details)
			}
		}
	}
	if bad > 0 {
		return fmt.Errorf("%d errors", bad)
	}
	fmt.Printf("%d certificates without an error\n", len(files))
	return nil
}
