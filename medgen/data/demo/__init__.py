"""A made-up cohort of patients with brain metastases: T1 before and after contrast, BRAVO, FLAIR and lesion masks.

Anatomy is that of the MNI152 2009a symmetric template (T1, grey and white matter, in nilearn's wheel), warped at random
for each patient. As is usual in collections of metastases, the skull is stripped and the background is 0.
"""
