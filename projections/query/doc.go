// Package query owns the questions that the command line, the health page and the console ask the served tables. It
// writes nothing, and it does not import the projector: whoever asks needs no Kafka.
//
// Each question finds its rows by an index, whatever there is beside them; TestQuestionsHaveIndexesAndPruneDays of
// package projections looks at its plan.
package query
