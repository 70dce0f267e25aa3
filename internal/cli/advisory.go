package cli

import (
	"archive/zip"
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"path"
	"strings"

	"github.com/spf13/cobra"

	"github.com/hallmark-iot/hallmark/internal/client"
	"github.com/hallmark-iot/hallmark/supply"
	"github.com/hallmark-iot/hallmark/supply/osv"
)

func newAdvisory(a *api) *cobra.Command {
	return a.noun("advisory", "Known flaws of components, and where those components are", a.listAdvisories(), a.importAdvisories(), a.findComponent())
}

func (a *api) listAdvisories() *cobra.Command {
	return listing(a, cobra.Command{
		Use: "list", Short: "List the ecosystems whose advisories are here", Example: "  hallmark advisory list",
		Long: "Lists the ecosystems whose advisories are here. Those that were imported more than 14 days ago, or of a lively ecosystem the newest of which is more than 30 days old, say nothing any more: components of that ecosystem read unknown, and not clear.",
	}, "ECOSYSTEM ADVISORIES NEWEST IMPORTED BY STATE",
		func(ctx context.Context, cl *client.Client, _ []string) ([]supply.Database, error) {
			return cl.Advisories(ctx)
		},
		func(d supply.Database) []string {
			state := "current"
			if d.Old {
				state = "too old: " + d.Why
			}
			return []string{d.Ecosystem, fmt.Sprint(d.Advisories), when(d.Newest), when(d.At), d.By, state}
		})
}

func (a *api) importAdvisories() *cobra.Command {
	var fewer bool
	c := a.verb(cobra.Command{
		Use: "import ECOSYSTEM FILE", Short: "Take in all advisories of an ecosystem", Args: cobra.ExactArgs(2),
		Long: `Takes in all advisories of an ecosystem, in the place of those before. FILE is the ecosystem's all.zip of osv.dev (https://osv-vulnerabilities.storage.googleapis.com/ECOSYSTEM/all.zip), or a file of
OSV's JSON, one object behind the other; it may come on a stick to an instance without a way out. Nothing counts before all of it is there, and a file that knows less than
the one before is refused; one with a tenth fewer advisories is taken with --fewer, while no product enforces what its supply gate finds.`,
		Example: "  hallmark advisory import Go all.zip",
	}, func(ctx context.Context, cl *client.Client, args []string) error {
		f, err := os.Open(args[1])
		if err != nil {
			return err
		}
		defer f.Close()
		all, err := advisoriesIn(f)
		if err != nil {
			return err
		}
		d, err := cl.ImportAdvisories(ctx, args[0], fewer, all)
		if err != nil {
			return err
		}
		return a.show(func(w io.Writer) error {
			return sheet(w, "ecosystem", d.Ecosystem, "advisories", fmt.Sprint(d.Advisories), "newest", when(d.Newest), "digest", d.Digest)
		})
	})
	c.Flags().BoolVar(&fewer, "fewer", false, "there may be many fewer than before")
	return c
}

// advisoriesIn gives the advisories of a file one behind the other, whether it is an archive or not.
func advisoriesIn(f *os.File) (io.Reader, error) {
	head := make([]byte, 4)
	if _, err := io.ReadFull(f, head); err != nil {
		return nil, usagef("%s is no file of advisories: %w", f.Name(), err)
	}
	st, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if !bytes.Equal(head, []byte("PK\x03\x04")) {
		_, err := f.Seek(0, io.SeekStart)
		return f, err
	}
	z, err := zip.NewReader(f, st.Size())
	if err != nil {
		return nil, usagef("%s: %w", f.Name(), err)
	}
	return &unpacked{files: z.File}, nil
}

// unpacked reads the JSON files of an archive as one.
type unpacked struct {
	files []*zip.File
	open  io.ReadCloser
	left  int64  // of the open one
	name  string // of it
}

func (u *unpacked) Read(p []byte) (int, error) {
	for {
		if u.open == nil {
			if err := u.next(); err != nil {
				return 0, err
			}
		}
		n, err := u.open.Read(p)
		if u.left -= int64(n); u.left < 0 {
			return 0, fmt.Errorf("%s is larger than an advisory is, which is %d bytes", u.name, osv.MaxSize)
		}
		if err == io.EOF { //nolint:errorlint // a Reader's
			err = u.open.Close()
			u.open = nil
		}
		if n > 0 || err != nil {
			return n, err
		}
	}
}

func (u *unpacked) next() (err error) {
	for len(u.files) > 0 {
		f := u.files[0]
		u.files = u.files[1:]
		if f.FileInfo().IsDir() {
			continue
		}
		if path.Ext(f.Name) != ".json" {
			return fmt.Errorf("%s in the archive is no advisory: want JSON files only", f.Name)
		}
		u.name, u.left = f.Name, osv.MaxSize
		u.open, err = f.Open()
		return err
	}
	return io.EOF
}

func (a *api) findComponent() *cobra.Command {
	return a.verb(cobra.Command{
		Use: "find WHAT", Short: "Say which releases and how many devices have a component", Args: cobra.ExactArgs(1),
		Long: `Says which releases have a component inside, and how many devices run each. WHAT is a package URL, with a version or without, or an advisory's ID or CVE number: then those
versions are named that the advisory is about, and those of which it could not be found out.`,
		Example: "  hallmark advisory find CVE-2024-24790\n  hallmark advisory find pkg:golang/golang.org/x/crypto",
	}, func(ctx context.Context, cl *client.Client, args []string) error {
		f, err := cl.FindComponent(ctx, args[0])
		if err != nil {
			return err
		}
		return a.show(func(w io.Writer) error {
			if len(f.Items) == 0 {
				_, err := fmt.Fprintln(w, "no release here has it, as far as their bills of materials say")
				return err
			}
			var rows [][]string
			for _, u := range f.Items {
				rows = append(rows, []string{u.Product, u.ID, u.Version, u.Status, u.PURL, string(u.Answer), fmt.Sprint(u.Devices)})
			}
			if err := table(w, "PRODUCT RELEASE VERSION STATUS COMPONENT ANSWER DEVICES", rows); err != nil {
				return err
			}
			_, err := fmt.Fprintf(w, "%d devices run them\n", f.Devices)
			return err
		})
	})
}

func (a *api) releaseComponents() *cobra.Command {
	var worst bool
	c := a.verb(cobra.Command{
		Use: "components RELEASE", Short: "List what a release is made of, and what is known against it", Args: cobra.ExactArgs(1),
		Long: `Lists what a release is made of, as the bill of materials says that it was proposed with, and what is known against each component now. A component is clear only when the
advisories of its ecosystem are here, are not too old, and could be compared with its version (` + "`hallmark advisory list`" + `).` + releaseArg,
		Example: "  hallmark release components pump@1.1.0 --not-clear",
	}, func(ctx context.Context, cl *client.Client, args []string) error {
		r, err := findRelease(ctx, cl, args[0])
		if err != nil {
			return err
		}
		doc, parts, err := cl.Contents(ctx, r.Digest)
		if err != nil {
			return err
		}
		return a.show(func(w io.Writer) error {
			var rows [][]string
			count := map[supply.Answer]int{}
			for _, p := range parts {
				count[p.Answer]++
				if worst && p.Answer == supply.Clear {
					continue
				}
				rows = append(rows, []string{p.Name, p.Version, string(p.Answer), reasonOf(p)})
			}
			if err := table(w, "COMPONENT VERSION ANSWER WHY", rows); err != nil {
				return err
			}
			_, err := fmt.Fprintf(w, "%s %s, %d components: %d affected, %d unknown, %d clear\n", doc.Format, doc.Spec, doc.Components, count[supply.Affected], count[supply.Unknown], count[supply.Clear])
			return err
		})
	})
	c.Flags().BoolVar(&worst, "not-clear", false, "only those that are affected, or of which it is not known")
	return c
}

// reasonOf says why a part is not clear.
func reasonOf(p supply.Part) string {
	var out []string
	for _, f := range p.Flaws {
		s := f.ID
		if len(f.CVEs) > 0 && f.CVEs[0] != f.ID {
			s += " (" + strings.Join(f.CVEs, ", ") + ")"
		}
		if len(f.Fixed) > 0 {
			s += ", mended in " + strings.Join(f.Fixed, ", ")
		}
		out = append(out, s)
	}
	if p.Why != "" {
		out = append(out, p.Why)
	}
	return strings.Join(out, "; ")
}
