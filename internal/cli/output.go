package cli

import "fmt"

// output is how an answer is printed. It implements pflag.Value.
type output string

const (
	asTable output = ""
	asJSON  output = "json"
	asYAML  output = "yaml"
	asName  output = "name"
	asTag   output = "tag"
	asCSV   output = "csv" // of lists, for a spreadsheet

	asMarkdown output = "markdown" // of reports
)

// String implements pflag.Value.
func (o *output) String() string {
	if *o == asTable {
		return "table"
	}
	return string(*o)
}

// Set implements pflag.Value.
func (o *output) Set(s string) error {
	switch s {
	case "table":
		*o = asTable
	case "json", "yaml", "name", "tag", "csv", "markdown":
		*o = output(s)
	default:
		return fmt.Errorf("%q: want table, json, yaml, name or tag, csv of a list, or markdown of a report", s)
	}
	return nil
}

// Type implements pflag.Value.
func (o *output) Type() string { return "FORMAT" }
