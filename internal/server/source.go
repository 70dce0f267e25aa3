package server

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/hallmark-iot/hallmark/internal/blob/s3"
	"github.com/hallmark-iot/hallmark/internal/durable"
	"github.com/hallmark-iot/hallmark/ledger"
	"github.com/hallmark-iot/hallmark/ledger/audit"
)

// maxLogFile bounds a file of a log: a full bundle of the largest entries.
const maxLogFile = 256 * (2 + 65535)

// LogSource reads logs from where they are: a directory with log/ in it, the address of an instance or of any web server that has such
// a directory, or a bucket's (s3://…).
func LogSource(from string) (func(log string) audit.Fetcher, error) {
	switch {
	case s3.IsAddress(from):
		b, err := s3.Open(from)
		if err != nil {
			return nil, err
		}
		return func(log string) audit.Fetcher { return found(b.Sub("log").Sub(log)) }, nil
	case strings.HasPrefix(from, "https://") || strings.HasPrefix(from, "http://"):
		client := &http.Client{Timeout: 30 * time.Second}
		base := strings.TrimSuffix(from, "/") + "/log/"
		return func(log string) audit.Fetcher {
			return func(ctx context.Context, path string) ([]byte, error) {
				return download(ctx, client, base+log+"/"+path)
			}
		}, nil
	}
	if info, err := os.Stat(filepath.Join(from, "log")); err != nil || !info.IsDir() {
		return nil, fmt.Errorf("%s is not a data directory of hallmark: neither log/ nor a copy of one is in it; `hallmark init --dir %s` makes one", from, from)
	}
	return func(log string) audit.Fetcher { return found(durable.Files{Dir: filepath.Join(from, "log", log)}) }, nil
}

// found makes of a place, where a file may be missing, a source, where it must be.
func found(at ledger.Exporter) audit.Fetcher {
	return func(ctx context.Context, path string) ([]byte, error) {
		data, err := at.Get(ctx, path)
		if err == nil && data == nil {
			err = fmt.Errorf("%s/%s: %w", at, path, fs.ErrNotExist)
		}
		return data, err
	}
}

func download(ctx context.Context, client *http.Client, url string) ([]byte, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
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

// LogTarget is where logs may be copied to: a directory, or a bucket's address. The log without a name is the folder of both.
func LogTarget(to string) (func(log string) ledger.Exporter, error) {
	if s3.IsAddress(to) {
		b, err := s3.Open(to)
		if err != nil {
			return nil, err
		}
		return func(log string) ledger.Exporter {
			if log == "" {
				return b.Sub("log")
			}
			return b.Sub("log").Sub(log)
		}, nil
	}
	if to == "" || strings.Contains(to, "://") {
		return nil, fmt.Errorf("%q is neither a directory nor the address of a bucket (s3://…)", to)
	}
	return func(log string) ledger.Exporter { return durable.Files{Dir: filepath.Join(to, "log", log)} }, nil
}

// exportFiles stands in config.json for the data directory.
const exportFiles = "files"

// checkExport says what is wrong with the places that the logs are exported to.
func (c Config) checkExport() error {
	seen := map[string]bool{}
	for _, e := range c.Export {
		if seen[e] {
			return fmt.Errorf("export: %q is there twice", e)
		}
		seen[e] = true
		if e == exportFiles {
			continue
		}
		if !s3.IsAddress(e) {
			return fmt.Errorf("export: %q is neither %q nor the address of a bucket (s3://…)", e, exportFiles)
		}
		if _, err := s3.Open(e); err != nil {
			return fmt.Errorf("export: %w", err)
		}
	}
	return nil
}

// exports are the places of one log, the first being the one that is served under /log/.
func (c Config) exports(l Layout, log ledger.Log) (out []ledger.Exporter, err error) {
	for _, e := range c.Export {
		to := l.Dir
		if e != exportFiles {
			to = e
		}
		at, err := LogTarget(to)
		if err != nil {
			return nil, err
		}
		out = append(out, at(string(log)))
	}
	if len(out) == 0 {
		out = []ledger.Exporter{durable.Files{Dir: filepath.Join(l.Logs(), string(log))}}
	}
	return out, nil
}
