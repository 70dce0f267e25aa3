// Command pack makes what goes out beside .deb and .rpm: the server's OCI image, the list of what programs are made of, and the statement of
// what was built from which commit.
//
// It runs when a release is packaged (scripts/package.sh), and is in the tools' module so that none of what it needs is in Hallmark's
// own. The same input gives the same bytes: nothing of the time, the path or the machine goes in; only signatures differ.
//
//	pack sbom       -o FILE [flags] PROGRAM           CycloneDX, from the modules a Go program says it was built of
//	pack image      -o FILE [flags] ARCH=PROGRAM…     an OCI image layout, in a tar
//	pack provenance -o FILE [flags] FILE…             in-toto statement with SLSA provenance; with -key also signed
package main

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"time"
)

// build is what all that is packaged has in common.
type build struct {
	out     string
	version string
	commit  string
	source  string // URL of the repository
	at      time.Time
	key     string // PEM of who signs provenance; empty: nobody
}

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "pack:", err)
		os.Exit(1)
	}
}

func run(args []string) error {
	if len(args) == 0 {
		return errors.New("say sbom, image or provenance")
	}
	var b build
	var epoch int64
	flags := flag.NewFlagSet("pack "+args[0], flag.ContinueOnError)
	flags.StringVar(&b.out, "o", "", "file to write")
	flags.StringVar(&b.version, "version", "", "version of Hallmark")
	flags.StringVar(&b.commit, "commit", "", "commit it was built from")
	flags.StringVar(&b.source, "source", "https://github.com/hallmark-iot/hallmark", "its repository")
	flags.Int64Var(&epoch, "epoch", 0, "the commit's time, seconds since 1970")
	flags.StringVar(&b.key, "key", "", "PEM file of the key that signs provenance")
	if err := flags.Parse(args[1:]); err != nil {
		return err
	}
	b.at = time.Unix(epoch, 0).UTC()
	if b.out == "" || b.version == "" || b.commit == "" || epoch == 0 || flags.NArg() == 0 {
		return errors.New("-o, -version, -commit, -epoch and something to work on are needed")
	}
	switch args[0] {
	case "sbom":
		data, err := b.sbom(flags.Arg(0))
		if err != nil {
			return err
		}
		return os.WriteFile(b.out, data, 0o644)
	case "image":
		return b.image(flags.Args())
	case "provenance":
		return b.provenance(flags.Args())
	}
	return fmt.Errorf("%q is neither sbom, image nor provenance", args[0])
}
