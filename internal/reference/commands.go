package main

import (
	"bytes"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/hallmark-iot/hallmark/internal/cli"
)

// commands lists the tree of commands, one heading each.
func commands(_ string, w *bytes.Buffer) error {
	root := cli.Commands()
	head(w, "Commands", root.Long)
	var nouns, all []*cobra.Command
	for _, c := range root.Commands() {
		if c.IsAvailableCommand() && c.Name() != "help" {
			nouns = append(nouns, c)
			all = append(all, within(c)...)
		}
	}
	for _, g := range root.Groups() {
		fmt.Fprintf(w, "**%s**\n\n| command | |\n|---|---|\n", g.Title)
		for _, c := range nouns {
			if c.GroupID == g.ID {
				fmt.Fprintf(w, "| [%s](#%s) | %s |\n", c.CommandPath(), anchor(c.CommandPath()), cell(c.Short))
			}
		}
		fmt.Fprintln(w)
	}
	for _, c := range all {
		command(w, c)
	}
	return nil
}

// within are a command and those below it.
func within(c *cobra.Command) []*cobra.Command {
	out := []*cobra.Command{c}
	for _, sub := range c.Commands() {
		if sub.IsAvailableCommand() {
			out = append(out, within(sub)...)
		}
	}
	return out
}

func command(w *bytes.Buffer, c *cobra.Command) {
	level := "##"
	if c.Parent().HasParent() {
		level = "###"
	}
	text := c.Long
	if text == "" {
		text = c.Short
	}
	if c.Parent().Name() == "completion" { // cobra's own; their long text is of shells
		text = c.Short
	}
	fmt.Fprintf(w, "%s %s\n\n%s\n\n", level, c.CommandPath(), strings.TrimSpace(text))
	if c.HasAvailableSubCommands() {
		for _, sub := range c.Commands() {
			if sub.IsAvailableCommand() {
				fmt.Fprintf(w, "- [%s](#%s): %s\n", sub.Name(), anchor(sub.CommandPath()), sub.Short)
			}
		}
		fmt.Fprintln(w)
	}
	block := ""
	if c.Runnable() && !c.HasSubCommands() {
		block = c.UseLine() + "\n"
		if flags := c.LocalNonPersistentFlags(); flags.HasAvailableFlags() {
			block += "\n" + flags.FlagUsages()
		}
	}
	if flags := c.PersistentFlags(); flags.HasAvailableFlags() {
		block += "\n" + flags.FlagUsages()
	}
	if block != "" {
		fmt.Fprintf(w, "```\n%s\n```\n\n", strings.Trim(block, "\n"))
	}
	if c.Example != "" {
		fmt.Fprintf(w, "```sh\n%s\n```\n\n", strings.TrimSpace(strings.ReplaceAll(c.Example, "\n  ", "\n")))
	}
}
