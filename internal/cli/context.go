package cli

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"

	"github.com/spf13/cobra"

	"github.com/hallmark-iot/hallmark/internal/durable"
)

// contexts are the instances a person works with, in a file of theirs. It names tokens' files and holds no token.
type contexts struct {
	Current  string                 `json:"current"`
	Contexts map[string]contextLine `json:"contexts"`
}

type contextLine struct {
	URL       string `json:"url"`
	TokenFile string `json:"token_file,omitempty"`
	CA        string `json:"ca,omitempty"`
	Cert      string `json:"cert,omitempty"`
	Key       string `json:"key,omitempty"`
}

func contextFile() (string, error) {
	dir, err := os.UserConfigDir()
	if err != nil {
		return "", fmt.Errorf("there is no place for contexts: %w; give --url and --token-file instead", err)
	}
	return filepath.Join(dir, "hallmark", "contexts.json"), nil
}

func loadContexts() (contexts, error) {
	c := contexts{Contexts: map[string]contextLine{}}
	path, err := contextFile()
	if err != nil {
		return c, nil //nolint:nilerr // who has no place for contexts has none
	}
	data, err := readFile(path, 1<<20)
	if errors.Is(err, fs.ErrNotExist) {
		return c, nil
	}
	if err == nil {
		err = json.Unmarshal(data, &c)
	}
	if err != nil {
		return c, fmt.Errorf("%s: %w; mend or remove it", path, err)
	}
	if c.Contexts == nil {
		c.Contexts = map[string]contextLine{}
	}
	return c, nil
}

func (c contexts) save() error {
	path, err := contextFile()
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return err
	}
	data, err := json.MarshalIndent(c, "", "  ")
	if err != nil {
		return err
	}
	return durable.WriteFile(path, append(data, '\n'), 0o600)
}

func newContext(s streams) *cobra.Command {
	c := &cobra.Command{
		Use: "context", Short: "The instances you work with",
		Long: `Keeps the addresses of instances, so that commands need no --url and --token-file. Flags come first, then ` + envURL + ` and
` + envToken + `, then the current context.`,
	}
	c.AddCommand(addContext(s), useContext(s), listContexts(s), removeContext(s))
	return c
}

func addContext(s streams) *cobra.Command {
	var line contextLine
	c := &cobra.Command{
		Use: "add NAME --url URL [--token-file FILE | --cert FILE --key FILE] [--ca FILE]", Short: "Keep an instance, and work with it from now on",
		Example: "  hallmark context add plant-7 --url https://hallmark.example.com --token-file ~/plant-7.token", Args: cobra.ExactArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			all, err := loadContexts()
			if err != nil {
				return err
			}
			for _, f := range []*string{&line.TokenFile, &line.CA, &line.Cert, &line.Key} {
				if *f == "" {
					continue
				}
				if *f, err = filepath.Abs(*f); err != nil {
					return err
				}
				if _, err := os.Stat(*f); err != nil {
					return usageError{err}
				}
			}
			all.Contexts[args[0]], all.Current = line, args[0]
			if err := all.save(); err != nil {
				return err
			}
			return sheet(s.out, "context", args[0], "url", line.URL)
		},
	}
	f := c.Flags()
	f.StringVar(&line.URL, "url", "", "address of the instance")
	f.StringVar(&line.TokenFile, "token-file", "", "file that holds the access token")
	f.StringVar(&line.CA, "ca", "", "certificate to trust for https")
	f.StringVar(&line.Cert, "cert", "", "a machine's client certificate, PEM")
	f.StringVar(&line.Key, "key", "", "its key, PEM")
	return need(c, "url")
}

func useContext(s streams) *cobra.Command {
	return &cobra.Command{
		Use: "use NAME", Short: "Work with another one", Example: "  hallmark context use plant-7", Args: cobra.ExactArgs(1), ValidArgsFunction: contextNames,
		RunE: func(_ *cobra.Command, args []string) error {
			all, err := loadContexts()
			if err != nil {
				return err
			}
			if _, ok := all.Contexts[args[0]]; !ok {
				return usagef("there is no context %q; see `hallmark context list`", args[0])
			}
			all.Current = args[0]
			if err := all.save(); err != nil {
				return err
			}
			return sheet(s.out, "context", args[0], "url", all.Contexts[args[0]].URL)
		},
	}
}

func listContexts(s streams) *cobra.Command {
	return &cobra.Command{
		Use: "list", Short: "List them", Example: "  hallmark context list", Args: cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			all, err := loadContexts()
			if err != nil {
				return err
			}
			var lines [][]string
			for _, name := range slices.Sorted(maps.Keys(all.Contexts)) {
				mark, x := "", all.Contexts[name]
				if name == all.Current {
					mark = "*"
				}
				lines = append(lines, []string{name, mark, x.URL, or(x.TokenFile)})
			}
			return table(s.out, "NAME CURRENT URL TOKEN-FILE", lines)
		},
	}
}

func removeContext(streams) *cobra.Command {
	return &cobra.Command{
		Use: "remove NAME", Short: "Forget one", Example: "  hallmark context remove plant-7", Args: cobra.ExactArgs(1), ValidArgsFunction: contextNames,
		RunE: func(_ *cobra.Command, args []string) error {
			all, err := loadContexts()
			if err != nil {
				return err
			}
			if _, ok := all.Contexts[args[0]]; !ok {
				return usagef("there is no context %q; see `hallmark context list`", args[0])
			}
			delete(all.Contexts, args[0])
			if all.Current == args[0] {
				all.Current = ""
			}
			return all.save()
		},
	}
}

func contextNames(*cobra.Command, []string, string) ([]cobra.Completion, cobra.ShellCompDirective) {
	all, err := loadContexts()
	if err != nil {
		return nil, cobra.ShellCompDirectiveError
	}
	return slices.Sorted(maps.Keys(all.Contexts)), cobra.ShellCompDirectiveNoFileComp
}
