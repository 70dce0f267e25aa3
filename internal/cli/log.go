package cli

import (
	"context"
	"crypto/ed25519"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/hallmark-iot/hallmark/ledger/audit"
)

// TrustFile is what an auditor needs to know beforehand, kept beside the logs as "trust.json": get it from a source you trust,
// not from the server you check.
type TrustFile struct {
	Logs []struct {
		Name   string            `json:"name"`
		Origin string            `json:"origin"`
		Key    ed25519.PublicKey `json:"key"`
	} `json:"logs"`
	Witnesses map[string]ed25519.PublicKey `json:"witnesses"`
	Quorum    int                          `json:"quorum"`
}

func newLog(s streams) *cobra.Command {
	cmd := &cobra.Command{Use: "log", Short: "Read and verify the ledger", Args: cobra.NoArgs}
	var dir, url, trust, receipts string
	var asJSON bool
	verify := &cobra.Command{
		Use:   "verify (--dir DATA | --url URL) [--trust FILE]",
		Short: "Recompute both logs from tiles and entries, and check checkpoints and cosignatures",
		Long: `Recomputes both logs from their published files, with code that shares nothing with the writer: every leaf, every tile, the
root, the log's signature and the witnesses' cosignatures. Prints size, root and counts for each kind of fact. Any mismatch is
named, and the exit code is 1.

With --receipts, each fact that the server once said was durable (header Hallmark-Facts: "events/" and its UID, one a line) must be
in its log too.

With --url the keys must come from elsewhere: --trust names a trust.json that you have from a source you trust.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if (dir == "") == (url == "") {
				return usagef("give one of --dir and --url")
			}
			if url != "" && trust == "" {
				return usagef("with --url, --trust FILE must name the keys to believe; the server's own would prove nothing")
			}
			if trust == "" {
				trust = filepath.Join(dir, "log", "trust.json")
			}
			fetch := dirFetcher(filepath.Join(dir, "log"))
			if url != "" {
				fetch = urlFetcher(strings.TrimSuffix(url, "/") + "/log")
			}
			var acknowledged []string
			if receipts != "" {
				data, err := os.ReadFile(receipts)
				if err != nil {
					return fmt.Errorf("receipts: %w", err)
				}
				acknowledged = strings.Fields(strings.ReplaceAll(string(data), ",", "\n"))
			}
			return verifyLogs(cmd.Context(), s.out, trust, fetch, acknowledged, asJSON)
		},
	}
	verify.Flags().StringVar(&dir, "dir", "", "data directory of an instance, or a copy of its log/ with trust.json")
	verify.Flags().StringVar(&url, "url", "", "address of a running instance")
	verify.Flags().StringVar(&trust, "trust", "", "file with origins, log keys and witness keys (default DIR/log/trust.json)")
	verify.Flags().StringVar(&receipts, "receipts", "", "file with receipts: their facts must be in the logs")
	verify.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	cmd.AddCommand(verify)
	return cmd
}

func dirFetcher(dir string) func(log string) audit.Fetcher {
	return func(log string) audit.Fetcher {
		return func(_ context.Context, path string) ([]byte, error) {
			return os.ReadFile(filepath.Join(dir, log, filepath.FromSlash(path)))
		}
	}
}

const maxLogFile = 256 * (2 + 65535) // a full bundle of the largest entries

func urlFetcher(base string) func(log string) audit.Fetcher {
	client := &http.Client{Timeout: 30 * time.Second}
	return func(log string) audit.Fetcher {
		return func(ctx context.Context, path string) ([]byte, error) {
			req, err := http.NewRequestWithContext(ctx, http.MethodGet, base+"/"+log+"/"+path, nil)
			if err != nil {
				return nil, err
			}
			resp, err := client.Do(req)
			if err != nil {
				return nil, err
			}
			defer resp.Body.Close()
			if resp.StatusCode != http.StatusOK {
				return nil, fmt.Errorf("%s answers %s", req.URL, resp.Status)
			}
			data, err := io.ReadAll(io.LimitReader(resp.Body, maxLogFile+1))
			if err == nil && len(data) > maxLogFile {
				err = errors.New("file too large")
			}
			return data, err
		}
	}
}

func verifyLogs(ctx context.Context, out io.Writer, trust string, fetch func(log string) audit.Fetcher, receipts []string, asJSON bool) error {
	data, err := os.ReadFile(trust)
	if err != nil {
		return fmt.Errorf("keys to believe: %w", err)
	}
	var t TrustFile
	if err := json.Unmarshal(data, &t); err != nil || len(t.Logs) == 0 {
		return fmt.Errorf("%s is not a trust file (%w); `hallmark init` writes one", trust, err)
	}
	var reports []audit.Report
	inLog := map[string]bool{}
	for _, l := range t.Logs {
		r, err := audit.Verify(ctx, audit.Policy{Origin: l.Origin, Key: l.Key, Witnesses: t.Witnesses, Quorum: t.Quorum}, fetch(l.Name))
		if err != nil {
			return fmt.Errorf("log %s does NOT verify: %w", l.Name, err)
		}
		reports = append(reports, r)
		for uid := range r.UIDs {
			inLog[l.Name+"/"+uid] = true
		}
	}
	for i, r := range receipts {
		if !inLog[r] {
			return fmt.Errorf("the logs do NOT hold what was acknowledged: receipt %d, %q, names no entry", i+1, r)
		}
	}
	if asJSON {
		return printJSON(out, reports)
	}
	if len(receipts) > 0 {
		fmt.Fprintf(out, "%d receipts: the logs hold every fact they name\n", len(receipts))
	}
	for _, r := range reports {
		fmt.Fprintf(out, "%s verifies\n  size %d\n  root %s\n  cosigned by %s\n", r.Origin, r.Size, r.Root, strings.Join(r.Cosigned, ", "))
		w := tabwriter.NewWriter(out, 0, 4, 2, ' ', 0)
		for _, k := range slices.Sorted(maps.Keys(r.Kinds)) {
			fmt.Fprintf(w, "  %s\t%d\n", k, r.Kinds[k])
		}
		if err := w.Flush(); err != nil {
			return err
		}
	}
	return nil
}
