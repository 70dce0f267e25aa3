package main

import (
	"errors"
	"time"

	"github.com/spf13/cobra"

	"github.com/hallmark-iot/hallmark/fault"
	"github.com/hallmark-iot/hallmark/station"
	"github.com/hallmark-iot/hallmark/station/durable"
	"github.com/hallmark-iot/hallmark/wire"
)

func (a *app) inspectCommand() *cobra.Command {
	var spec station.InspectSpec
	var failed bool
	var report string
	cmd := &cobra.Command{
		Use: "inspect ORDER", Short: "Say what was seen of the first article", Args: cobra.ExactArgs(1),
		Long: "Say what was seen of the first article that was made last.\n\nIt is signed, and goes back to the OEM with the records. An order that demands a first article goes on when it passed; when it\nfailed, another one is made and inspected.",
		RunE: func(cmd *cobra.Command, args []string) error {
			if report != "" && !spec.Passed && !failed {
				return a.with(cmd, func(s *station.Station) error {
					r, err := s.FirstArticle(args[0])
					if err != nil {
						return err
					}
					return a.reportFirst(cmd, s, r, report)
				})
			}
			if spec.By == "" {
				return fault.New(fault.Invalid, "inspection.invalid", "say who looked", "give --by NAME")
			}
			if spec.Passed == failed {
				return fault.New(fault.Invalid, "inspection.invalid", "say how it ended", "give either --passed or --failed")
			}
			spec.Order = args[0]
			return a.with(cmd, func(s *station.Station) error {
				i, err := s.Inspect(spec, time.Now())
				if err != nil {
					return err
				}
				word := "failed"
				if i.Passed {
					word = "passed"
				}
				return a.say(cmd, i, "first article "+i.Device+" "+word+", says "+i.By)
			})
		},
	}
	f := cmd.Flags()
	f.BoolVar(&spec.Passed, "passed", false, "it is as it should be")
	f.BoolVar(&failed, "failed", false, "it is not")
	f.StringVar(&spec.By, "by", "", "who looked")
	f.StringVar(&spec.Notes, "notes", "", "what was seen")
	f.StringVar(&report, "report", "", "without a verdict: write the page to inspect by once more, to this file")
	return cmd
}

// reportFirst writes the page to inspect the first article by.
func (a *app) reportFirst(cmd *cobra.Command, s *station.Station, r wire.Record, path string) error {
	if r.Outcome != wire.Made {
		return fault.New(fault.Conflict, "run.scrap", "the first article was not made: "+r.Reason, "see the reason, mend the line, run again")
	}
	if path == "" {
		path = r.Order + "-first-article.html"
	}
	f, err := durable.Create(path)
	if err != nil {
		return err
	}
	if err := s.ReportFirst(f, r); err != nil {
		f.Abort()
		return err
	}
	return errors.Join(f.Commit(), a.say(cmd, map[string]string{"order": r.Order, "device": r.Device, "report": path},
		"first article "+r.Device+" of order "+r.Order, "report in "+path+": inspect the piece, then `hallmark-station inspect`"))
}
