"""Exams: for each task, the questions that are put to a model and the scores that judges give its answers."""
